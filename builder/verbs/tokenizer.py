"""Train a tokenizer on a text, or look at one: its size, its tokens, how far a text shrinks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import InputError
from builder.verbs.generate import within

if TYPE_CHECKING:
    from builder.tokenizers import Tokenizer

FILE = "tokenizer.json"
LONGEST = 20  # tokens shown
TEXT = 1 << 20  # characters of a source that are looked at


def configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    train = actions.add_parser("train", help="fit one to a text")
    train.add_argument("data", metavar="DATA", help="a file, folder or pattern, or python_docs")
    train.add_argument("out", type=Path, metavar="OUT", help=f"a new {FILE}")
    train.add_argument("--kind", choices=["bpe", "char", "bytes"], default="bpe")
    train.add_argument(
        "--vocab", type=within(int, 1), default=2048, metavar="N", help="of bpe; default: 2048"
    )
    inspect = actions.add_parser("inspect", help="tell what one is")
    inspect.add_argument("place", type=Path, metavar="RUN|FILE", help=f"a run, or a {FILE}")
    inspect.add_argument("--text", metavar="TEXT", help="show its tokens")
    inspect.add_argument("--data", metavar="DATA", help="tell how far a text shrinks")


def run(args: Namespace) -> None:
    if args.action == "train":
        fitted = fit(args.kind, args.vocab, args.data, args.out)
        print(f"{args.out}: {fitted.size} tokens; in a recipe, tokenizer: {{file: {args.out}}}")
    else:
        print("\n".join(told(args)))


def fit(kind: str, vocab: int, data: str, out: Path) -> Tokenizer:
    """A tokenizer of a text, in a file of its own.  InputError if the file is there."""
    from builder.construct import make
    from builder.graph import Filler
    from builder.training.evaluate import source_of

    if out.exists():
        raise InputError("file-exists", f"{str(out)!r} exists already", "choose another name")
    options = (("vocab", vocab),) if kind == "bpe" else ()
    source = source_of(data)
    plan = make(Filler(kind, "tokenizer", options))
    fitted: Tokenizer = plan.fit(piece for document in source.documents() for piece in document)
    try:
        fitted.save(out)
    except OSError as error:
        raise InputError("cannot-write", f"cannot write {str(out)!r}: {error.strerror}") from None
    return fitted


def told(args: Namespace) -> list[str]:
    """What a tokenizer is, and what it makes of a text."""
    from builder.tokenizers import Tokenizer

    place = args.place / FILE if args.place.is_dir() else args.place
    tokenizer = Tokenizer.load(place)
    end = "none" if tokenizer.end is None else f"{tokenizer.end} ({tokenizer.name(tokenizer.end)})"
    longest = sorted(map(tokenizer.name, range(tokenizer.size)), key=len, reverse=True)[:LONGEST]
    lines = [
        f"tokens   {tokenizer.size:,}",
        f"end      {end}",
        f"hash     {tokenizer.hash[:12]}",
        f"longest  {' '.join(longest)}",
    ]
    if args.text is not None:
        ids = tokenizer.encode(args.text)
        lines.append(f"text     {' '.join(f'{tokenizer.name(i)}={i}' for i in ids)}")
    if args.data is not None:
        lines.append(f"data     {shrinkage(tokenizer, args.data)}")
    return lines


def shrinkage(tokenizer: Tokenizer, data: str) -> str:
    """Bytes a token, over the beginning of a text."""
    from builder.training.evaluate import source_of

    pieces, size = [], 0
    for piece in (piece for document in source_of(data).documents() for piece in document):
        pieces.append(piece)
        size += len(piece)
        if size >= TEXT:
            break
    count = sum(map(len, tokenizer.encode_batch(pieces)))
    total = sum(len(piece.encode()) for piece in pieces)
    return f"{total / max(count, 1):.2f} bytes a token, over {total:,} bytes"
