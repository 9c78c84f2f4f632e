"""What came out, as tables: for a terminal, for a page, for a paper, and as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from statistics import median

from builder.ablation.judge import Judgement
from builder.ablation.matching import Matched
from builder.ablation.outcome import Ablation, Comparison, Record
from builder.ablation.statistics import Paired, proportion
from builder.ablation.swaps import BASE
from builder.ablation.verdicts import ALPHA, sentence, told
from builder.drawing.svg import shown
from builder.training.memory import told as bytes_told
from builder.training.settings import settings_of

EFFECTS = ("row", "verdict", "difference", "interval", "p", "seeds", "rate", "at the shared rate")
COSTS = (
    "row",
    "parameters",
    "active",
    "embedding",
    "FLOPs a token",
    "cache",
    "tokens",
    "seconds",
    "memory",
)


def sentences(found: Ablation) -> Iterator[str]:
    """One for each row, then what chance does, then what must be known."""
    for row in found.rows:
        said = row.chief.verdict
        if said is None:
            yield f"{row.name}: no seed of it is whole, so that nothing can be said."
            continue
        yield sentence(row.name, said, found.metric)
        if row.chief.solved is not None:
            yield f"{row.name} solved the task in {share(*row.chief.solved)}."
        if row.interaction is not None:
            yield f"{row.name}: {joint(row.interaction)}"
    if found.noise is not None:
        apart = interval(found.noise, found.metric.unit)
        yield f"The base against itself, with other seeds: {apart}."
    yield from (f"Mind: {note}." for note in found.notes)


def share(successes: int, seeds: int) -> str:
    """So many of so many, and the exact interval of the share."""
    low, high = (100 * end for end in proportion(successes, seeds, ALPHA))
    return f"{successes} of {seeds} seeds ({low:.0f} to {high:.0f} %)"


def joint(found: Paired) -> str:
    """Whether two swaps do together what they do alone."""
    apart = (
        "as the sum of its parts" if found.low <= 0 <= found.high else "not the sum of its parts"
    )
    return f"{apart}, from which it differs by {interval(found)}."


def interval(found: Paired, unit: str = "") -> str:
    mean = f"{found.mean:+.4f} {unit}".strip()
    if math.isinf(found.low):
        return f"{mean}, of one seed"
    return f"{mean} ({found.low:+.4f} to {found.high:+.4f})"


def effects(found: Ablation) -> list[list[str]]:
    """A line for each row: its verdict, and the difference from the base."""
    return [[row.name, *effect(row.chief), shared(row.shared)] for row in found.rows]


def effect(one: Comparison) -> list[str]:
    """What a comparison came to, but for its row's name."""
    said = one.verdict
    if said is None:
        return ["failed", "", "", "", str(len(one.seeds)), rates(one)]
    low, high = said.found.low, said.found.high
    between = "" if math.isinf(low) else f"{low:+.4f} to {high:+.4f}"
    return [
        said.word,
        f"{said.found.mean:+.4f}",
        between,
        told(said.p),
        str(said.found.n),
        rates(one),
    ]


def rates(one: Comparison) -> str:
    same = one.rate == one.base_rate
    return f"{one.rate:g}" if same else f"{one.rate:g} (base {one.base_rate:g})"


def shared(one: Comparison) -> str:
    said = one.verdict
    return "" if said is None else f"{said.found.mean:+.4f}, {said.word}"


def costs(found: Ablation) -> list[list[str]]:
    """A line for the base and each row: everything that it costs."""
    return [cost(found, row) for row in (found.base, *(row.matched for row in found.rows))]


def cost(found: Ablation, row: Matched) -> list[str]:
    """What a row costs; its seconds are those of the middle one of its cells."""
    one, settings = row.costs, settings_of(row.variant.recipe)
    seconds = [
        record.result.seconds
        for record in found.records
        if record.name == row.variant.name and record.result.status == "done"
    ]
    tokens = settings.steps * settings.batch * (settings.length or one.length)
    memory = one.memory.total if one.memory else None
    return [
        row.variant.name,
        number(one.parameters),
        number(one.active_parameters),
        number(one.embedding_parameters),
        number(one.per_token(one.train)),
        number(one.cache_bytes),
        number(tokens),
        f"{median(seconds):.1f}" if seconds else "",
        "" if memory is None else bytes_told(memory),
    ]


def number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


# Ways to write them


def plain(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """For a terminal: what is narrow enough lies under its head."""
    rows = [list(heads), *map(list, lines)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown(found: Ablation) -> str:
    """Both tables, and the sentences."""
    parts = ["\n".join(f"- {line}" for line in sentences(found))]
    for heads, lines in ((EFFECTS, effects(found)), (COSTS, costs(found))):
        rows = [heads, ["---"] * len(heads), *lines]
        parts.append("\n".join(f"| {' | '.join(map(escaped, row))} |" for row in rows))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def latex(found: Ablation) -> str:
    """Both tables, for a page that loads ``booktabs``."""
    return "\n\n".join(
        tabular(heads, lines) for heads, lines in ((EFFECTS, effects(found)), (COSTS, costs(found)))
    )


def tabular(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [" & ".join(map(protected, row)) + r" \\" for row in (heads, *lines)]
    body = ["\\toprule", rows[0], "\\midrule", *rows[1:], "\\bottomrule"]
    columns = "l" + "r" * (len(heads) - 1)
    return "\n".join([f"\\begin{{tabular}}{{{columns}}}", *body, "\\end{tabular}"]) + "\n"


def protected(text: str) -> str:
    """What LaTeX reads as its own, made plain."""
    marks = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(marks.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def html(found: Ablation) -> str:
    """The table of effects, for a notebook."""
    return grid(EFFECTS, effects(found))


def grid(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table with a line of heads, as an element of a page."""
    top = "".join(f"<th>{shown(head)}</th>" for head in heads)
    rows = ("".join(f"<td>{shown(cell)}</td>" for cell in line) for line in lines)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="grid"><tr>{top}</tr>{body}</table>'


def jsonl(found: Ablation) -> str:
    """A line for each cell, in the order in which they were asked for."""
    return "".join(json.dumps(line(record)) + "\n" for record in found.records)


def claims_markdown(judgements: Sequence[Judgement]) -> str:
    """A line for each claim: what it says, what it came to, and the numbers."""
    heads = ["claim", "source", "", "found"]
    lines = [[one.claim.says, one.claim.source, one.word, one.found] for one in judgements]
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(map(escaped, row))} |" for row in rows) + "\n"


def claims_jsonl(judgements: Sequence[Judgement]) -> str:
    """A line for each cell, with the claim that asked for it."""
    lines = (
        {"claim": one.claim.says, "judged": one.word, **line(record)}
        for one in judgements
        for record in one.records
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def line(record: Record) -> dict[str, object]:
    """A cell with all its numbers, and how it is trained again."""
    cell, result = record.cell, record.result
    return {
        "row": record.name,
        "use": record.use,
        "seed": cell.seed,
        "lr": cell.rate,
        "status": result.status,
        **result.numbers,
        "seconds": result.seconds,
        **({"error": result.error} if result.error else {}),
        "run": str(cell.path),
        "command": cell.command,
    }


def summary(found: Ablation) -> str:
    """Everything at once, for a terminal."""
    base = next((r for r in found.records if r.name == BASE and r.use == "report"), None)
    own = "" if base is None or not base.result.numbers else at_base(found, base)
    return "\n".join(
        [
            plain(EFFECTS, effects(found)),
            "",
            plain(COSTS, costs(found)),
            "",
            own,
            *sentences(found),
        ]
    )


def at_base(found: Ablation, base: Record) -> str:
    value = found.metric.value(base.result.numbers)
    return (
        f"The base's {found.metric.name} is {value:.4f} {found.metric.unit}, with its first seed."
    )
