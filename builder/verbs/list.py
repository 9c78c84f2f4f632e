"""Show every block, or all about one: options, types, defaults, source."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from builder.errors import InputError
from builder.index import Index, load_index, nearest
from builder.verbs import plugin_argument


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", metavar="WORD", help="a block, such as attention")
    plugin_argument(parser)


def run(args: Namespace) -> None:
    index = load_index(args.plugins)
    print(overview(index) if args.word is None else about(index, args.word))


def overview(index: Index) -> str:
    """Every word with its one line, by kind."""
    width = max(len(entry.word) for entry in index)
    groups = (
        "\n".join([kind, *(f"  {e.word:<{width}}  {e.summary}" for e in entries)])
        for kind, entries in index.kinds.items()
    )
    return "\n\n".join(groups)


def about(index: Index, word: str) -> str:
    """One word in full, in every namespace that has it; or every word of a kind."""
    if found := index.named(word):
        return "\n\n\n".join(index.describe(entry) for entry in found)
    if entries := index.kinds.get(word):
        return "\n".join(f"{entry.word}: {entry.summary}" for entry in entries)
    near = nearest(word, [*(entry.word for entry in index), *index.kinds])
    help = f"did you mean {near!r}?" if near else "'list' alone shows every word"
    raise InputError("unknown-word", f"{word!r} is no block and no kind of block", help)
