"""Tell what changes between two models, and what it costs.

Compared is what the recipes mean: other names, another grouping or another spelling is the same
model.  PATH=VALUE changes the second recipe before it is compared.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from builder.verbs import load, plugin_argument

if TYPE_CHECKING:
    from builder.diff import Change, Difference
    from builder.recipe import Recipe

FEW = 4  # changes that one sentence holds
Number: TypeAlias = "int | float | None"  # None is unknown


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="A", help="a recipe file")
    parser.add_argument("second", type=Path, metavar="B", help="another, or the same one")
    parser.add_argument(
        "overrides", nargs="*", metavar="PATH=VALUE", help="changes B: dims.kv_heads=2, ..."
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    plugin_argument(parser)


def run(args: Namespace) -> None:
    from builder.diff import compare

    first = load(Namespace(recipe=args.first, overrides=[], plugins=args.plugins))
    second = load(Namespace(recipe=args.second, overrides=args.overrides, plugins=args.plugins))
    difference = compare(first, second)
    costs = None if difference.same else price(first, second)
    if args.json:
        print(json.dumps(record(difference, costs), indent=2))
    else:
        print("\n".join(report(names(first, second), difference, costs)))


@dataclass(frozen=True)
class Prices:
    """What two models cost at one length, the shorter context, and in the first one's dtype."""

    length: int
    dtype: str
    rows: dict[str, tuple[Number, Number]]

    def title(self, key: str) -> str:
        """A row's name, with the length and the dtype that it goes by."""
        where = {
            "flops_per_token": f" over {self.length} tokens",
            "cache_bytes_per_token": f", {self.dtype}",
            "cache_bytes": f" at {self.length} tokens, {self.dtype}",
        }
        return key.replace("_", " ").replace("flops", "FLOPs") + where.get(key, "")


def price(first: Recipe, second: Recipe) -> Prices:
    """Measure both models.  Active parameters are told where they are not simply all."""
    from builder.measure import measure  # torch loads here

    length, dtype = min(first.graph.context, second.graph.context), str(first.train["dtype"])
    ours, theirs = (
        measure(recipe, length, dtype=dtype, training=False) for recipe in (first, second)
    )
    rows: dict[str, tuple[Number, Number]] = {
        "parameters": (ours.parameters, theirs.parameters),
        "active_parameters": (ours.active_parameters, theirs.active_parameters),
        "flops_per_token": (ours.per_token(ours.prefill), theirs.per_token(theirs.prefill)),
        "cache_bytes_per_token": (ours.cache_bytes_per_token, theirs.cache_bytes_per_token),
        "cache_bytes": (ours.cache_bytes, theirs.cache_bytes),
    }
    if rows["active_parameters"] == rows["parameters"]:
        del rows["active_parameters"]
    return Prices(length, dtype, rows)


def names(first: Recipe, second: Recipe) -> tuple[str, str]:
    """What to call two recipes."""
    alike = first.name == second.name
    return ("the first", "the second") if alike else (first.name, second.name)


def report(called: tuple[str, str], difference: Difference, costs: Prices | None) -> list[str]:
    """The whole answer, as lines."""
    lines = [sentence(called, difference, costs)]
    if difference.model:
        lines += ["", *table(["", *called], [row(change) for change in difference.model])]
    if costs:
        told = [
            [costs.title(key), *map(shown, pair), share(*pair)] for key, pair in costs.rows.items()
        ]
        lines += ["", *table(["costs", *called, ""], told)]
    if difference.training:
        lines += ["", "trained otherwise: " + ", ".join(map(str, difference.training))]
    return lines


def sentence(called: tuple[str, str], difference: Difference, costs: Prices | None) -> str:
    """What there is to say in one line."""
    first, second = called
    if difference.same:
        return f"{first} and {second} are the same model"
    count = len(difference.model)
    told = f"{second} is {first} with {', '.join(map(str, difference.model))}"
    if count > FEW:
        told = f"{second} differs from {first} in {count} ways"
    if costs is None:
        return told
    cache = share(*costs.rows["cache_bytes_per_token"])
    return f"{told}; parameters {share(*costs.rows['parameters'])}, cache {cache}"


def row(change: Change) -> list[str]:
    """A change as a line of the table; what came or went has a dash where it is not."""
    what = f"{change.what} ({change.where})" if change.where else change.what
    return [what, change.before or "-", change.after or "-"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ([f"{cell:<{w}}" for cell, w in zip(r, widths, strict=True)] for r in (head, *rows))
    return ["  ".join(line).rstrip() for line in lines]


def shown(value: Number) -> str:
    """A count with its thousands apart."""
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def share(before: Number, after: Number) -> str:
    """How much more or less, in per cent."""
    if before is None or after is None:
        return "unknown"
    if before == after:
        return "unchanged"
    if not before:
        return "new"
    change = 100 * (after - before) / before
    digits = 0 if abs(change) >= 10 else 1 if abs(change) >= 0.1 else 3
    return f"{change:+.{digits}f} %".replace("-", "−")


def record(difference: Difference, costs: Prices | None) -> dict[str, Any]:
    """What ``--json`` prints: each cost as a pair."""
    priced = {} if costs is None else asdict(costs)
    return {**asdict(difference), "costs": priced.pop("rows", {}), **priced}
