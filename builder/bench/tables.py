"""What a match came to, as a page shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from builder.bench.cases import PEERS, Case
from builder.bench.commands import in_rows
from builder.bench.match import Limits, Result
from builder.measure import Costs, measure
from builder.recipe import load_recipe

BASE = PEERS[0]
HEAD = ("", "tokens/s", "slowest to fastest", f"× {BASE}", "of the limit", "first step", "peak")
START = ("", "seconds", "fastest to slowest", f"× {BASE}", "peak")


def least(case: Case, costs: Costs, limits: Limits, contender: str) -> float:
    """The seconds that a step would take at the machine's limit: of operations, or in decoding of
    bytes that must be read, the weights and what is remembered.
    """
    if case.work != "decode":
        counted = costs.train if case.work == "train" else costs.prefill
        return case.batch * (counted or 0) / limits.operations
    read = costs.parameters - case.vocab * case.dim  # of the embedding a row
    width = 1 if "int8" in contender else 4
    cache = (costs.cache_bytes_per_token or 0) * (case.length + case.new / 2) * case.batch
    return case.new * (width * read + cache) / limits.bytes


def table(case: Case, results: Sequence[Result], limits: Limits) -> str:
    """Medians, and between them ratios round by round, in Markdown."""
    base = next((one.seconds for one in results if one.contender == BASE), [])
    measured = [one for one in results if one.seconds and not one.reason]
    notes = "".join(f"\n- {one.contender}: {one.reason}" for one in results if one.reason)
    notes = notes and f"\n{notes}"
    if case.work == "start":
        return in_rows([START, *(_start(one, base) for one in measured)]) + notes
    costs = measure(load_recipe(case.page), case.length, training=case.work == "train")
    rows = [_row(case, one, base, least(case, costs, limits, one.contender)) for one in measured]
    if case.work == "decode":
        limit = f"{limits.bytes / 1e9:.1f} GB/s, as rows of a matrix are read"
    else:
        limit = f"{limits.operations / 1e9:.1f} GFLOP/s, as large matrices are multiplied"
    return f"{in_rows([HEAD, *rows])}{notes}\n\nThe limit: {limit}."


def _row(case: Case, one: Result, base: Sequence[float], least_seconds: float) -> tuple[str, ...]:
    rates = [case.tokens / seconds for seconds in one.seconds]
    spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
    share = f"{least_seconds / median(one.seconds):.0%}"
    first = f"{one.first:.1f} s"
    ratio = _ratio(base, one.seconds)
    return one.contender, f"{median(rates):,.0f}", spread, ratio, share, first, _size(one.peak)


def _start(one: Result, base: Sequence[float]) -> tuple[str, ...]:
    spread = f"{min(one.seconds):.2f} to {max(one.seconds):.2f}"
    middle = f"{median(one.seconds):.2f}"
    return one.contender, middle, spread, _ratio(base, one.seconds), _size(one.peak)


def _ratio(base: Sequence[float], seconds: Sequence[float]) -> str:
    if len(base) != len(seconds):
        return "-"
    return f"{median(b / s for b, s in zip(base, seconds, strict=True)):.2f}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def write(path: Path, name: str, text: str) -> None:
    """Put a case's results in their place on a page, or at its end."""
    begin, end = f"<!-- bench {name} -->", "<!-- end -->"
    page = path.read_text("utf-8") if path.exists() else ""
    block = f"{begin}\n{text}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(page):
        page = pattern.sub(lambda _: block, page)
    else:
        page = f"{page.rstrip()}\n\n{block}\n"
    path.write_text(page, "utf-8")
