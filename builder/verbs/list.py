"""Show every block, or all about one: options, types, defaults, source."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from textwrap import wrap

from builder.errors import InputError
from builder.index import Entry, Index, load_index, nearest
from builder.verbs import plugin_argument

COLUMNS = 100


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
        "\n".join([kind, *(row(f"  {e.word:<{width}}  ", e) for e in entries)])
        for kind, entries in index.kinds.items()
    )
    return "\n\n".join(groups)


def row(label: str, entry: Entry) -> str:
    """What a block is, beside its label, in lines that a terminal holds."""
    lines = wrap(entry.summary, COLUMNS - len(label), break_long_words=False)
    return "\n".join(
        f"{label if i == 0 else ' ' * len(label)}{line}" for i, line in enumerate(lines)
    )


def about(index: Index, word: str) -> str:
    """One word in full, in every namespace that has it; or every word of a kind."""
    if found := index.named(word):
        return "\n\n\n".join(index.describe(entry) for entry in found)
    if entries := index.kinds.get(word):
        return "\n".join(row(f"{entry.word}: ", entry) for entry in entries)
    near = nearest(word, [*(entry.word for entry in index), *index.kinds])
    help = f"did you mean {near!r}?" if near else "'list' alone shows every word"
    raise InputError("unknown-word", f"{word!r} is no block and no kind of block", help)
