"""A run, or several, as one page: HTML that needs nothing else, and no network."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from builder.drawing.chart import Line, chart
from builder.drawing.svg import inline, shown
from builder.measure import Costs, measure
from builder.training.memory import told
from builder.training.progress import duration
from builder.training.runs import Run, replace_text, score
from builder.training.settings import settings_of

SMOOTHING = 0.02  # of a run, to each side: the losses that a smooth line is the mean of
COLOURS = 6
STYLE = Path(__file__).with_suffix(".css")
AXES = ("steps", "tokens", "FLOPs", "time")
MAX_SAMPLES = 40
MAX_EVENTS = 200


@dataclass(frozen=True)
class Told:
    """A run as a report tells it."""

    run: Run

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        return self.run.metrics()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @cached_property
    def costs(self) -> Costs:
        """Those of a training step over its windows."""
        settings = settings_of(self.run.recipe)
        length = settings.length or self.run.recipe.graph.context
        return measure(self.run.recipe, length, -(-settings.batch // settings.accumulate))

    @cached_property
    def step_tokens(self) -> int:
        return int(settings_of(self.run.recipe).batch) * self.costs.length

    @cached_property
    def seconds(self) -> dict[int, float]:
        """Of training up to each step, evaluations aside."""
        return {e["step"]: e["seconds"] for e in self.of("step") if "seconds" in e}

    def places(self, steps: Sequence[int], axis: str) -> list[float] | None:
        """Where steps lie on an axis; None where it is not known."""
        each: float | int | None = self.costs.per_token(self.costs.train)
        match axis:
            case "steps":
                return [float(step) for step in steps]
            case "tokens":
                return [float(step * self.step_tokens) for step in steps]
            case "FLOPs" if each is not None:
                return [step * self.step_tokens * each for step in steps]
            case "time" if all(step in self.seconds for step in steps):
                return [self.seconds[step] for step in steps]
        return None


def page(runs: Sequence[Run]) -> str:
    """The HTML of a report."""
    every = [Told(run) for run in runs]
    title = ", ".join(run.path.name for run in runs)
    parts = [
        *(head(one) for one in every),
        curves(every),
        *(section for one in every for section in sections(one, len(every) > 1)),
    ]
    return document(title, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """A page of HTML that needs nothing else."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{shown(title)}</title>",
            f"<style>{STYLE.read_text('utf-8')}</style>",
            "</head>",
            "<body>",
            *parts,
            "</body>",
            "</html>",
            "",
        ]
    )


def head(one: Told) -> str:
    """What the run is, and what it came to, at a glance."""
    run, recipe = one.run, one.run.recipe
    steps, last = one.of("step"), one.run.last("validation")
    settings = settings_of(recipe)
    tiles = {
        "parameters": f"{one.costs.parameters:,}",
        "steps": f"{steps[-1]['step'] if steps else 0:,} of {settings.steps:,}",
        "tokens read": f"{(steps[-1]['step'] if steps else 0) * one.step_tokens:,}",
        "training loss": f"{steps[-1]['loss']:.4f} nats" if steps else "none yet",
        "validation": "{:.4f} {}".format(*score(last)) if last else "none yet",
        "time in steps": duration(one.seconds[max(one.seconds)]) if one.seconds else "unknown",
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles.items())
    about = f"{shown(recipe.name)}, hash {recipe.hash}, started {run.environment.get('started')}"
    title = f"<h1>{shown(run.path.name)}</h1><p>{about}</p>"
    return f'<header>{title}<dl class="tiles">{cells}</dl></header>'


# Curves


def curves(every: Sequence[Told]) -> str:
    """Each chart over each axis; which axis is shown is chosen without a script."""
    axes = [axis for axis in AXES if all(one.places([], axis) is not None for one in every)]
    chosen = "".join(
        f'<input type="radio" name="axis" id="by-{axis}"{" checked" * (axis == "steps")}>'
        f'<label for="by-{axis}">{axis}</label>'
        for axis in axes
    )
    figures = "".join(
        f'<figure class="by-{axis}"><figcaption>{name}{legend(every)}</figcaption>{drawn}</figure>'
        for name, lines in charts(every).items()
        for axis in axes
        if (drawn := chart(lines(axis), "seconds" if axis == "time" else axis, name))
    )
    return f'<section class="curves"><h2>Curves</h2>{chosen}<div>{figures}</div></section>'


def legend(every: Sequence[Told]) -> str:
    if len(every) == 1:
        return ""
    keys = (f'<b class="s{n % COLOURS}">{shown(o.run.path.name)}</b>' for n, o in enumerate(every))
    return f"<span>{' '.join(keys)}</span>"


def charts(every: Sequence[Told]) -> dict[str, Any]:
    """By name, a function of the axis that gives the lines of a chart."""

    def steps(key: str, smooth: bool = False) -> Any:
        def lines(axis: str) -> Iterator[Line]:
            for n, one in enumerate(every):
                found = [event for event in one.of("step") if key in event]
                at = one.places([event["step"] for event in found], axis) or []
                values = [event[key] for event in found][: len(at)]
                style = f"s{n % COLOURS}"
                if smooth:
                    yield Line(key, at, values, f"{style} faint")
                    values = smoothed(values)
                yield Line(f"{one.run.path.name}: {key}", at, values, style)

        return lambda axis: list(lines(axis))

    def validations(axis: str) -> list[Line]:
        return [
            Line(f"{one.run.path.name}: {name}", at, [score(e)[0] for e in found], style, True)
            for n, one in enumerate(every)
            for name, found in by_set(one).items()
            if (at := one.places([event["step"] for event in found], axis)) is not None
            for style in [f"s{n % COLOURS}" + " other" * (name != "validation")]
        ]

    found = [event for one in every for event in one.of("validation")]
    units = dict.fromkeys(score(event)[1] for event in found)
    return {
        "training loss, nats a token": steps("loss", smooth=True),
        f"validation, {' or '.join(units) or 'none yet'}": validations,
        "learning rate": steps("lr"),
        "gradient norm, before clipping": steps("norm"),
        "tokens a second": steps("tokens_per_s"),
    }


def by_set(one: Told) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for event in one.of("validation"):
        found.setdefault(event.get("set", "validation"), []).append(event)
    return found


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of as many values to each side as there are, up to a share of them all."""
    most, count = max(1, round(SMOOTHING * len(values))), len(values)
    sums = [0.0, *accumulate(values)]
    reach = [min(most, n, count - 1 - n) for n in range(count)]
    return [(sums[n + r + 1] - sums[n - r]) / (2 * r + 1) for n, r in enumerate(reach)]


# What stands below


def sections(one: Told, several: bool) -> Iterator[str]:
    """Everything about one run, but for its curves."""
    name = f": {shown(one.run.path.name)}" if several else ""
    yield f"<section><h2>Recipe{name}</h2>{recipe(one)}</section>"
    yield f"<section><h2>Costs{name}</h2>{table(costs(one))}</section>"
    yield f"<section><h2>Events{name}</h2>{events(one)}</section>"
    if samples := one.of("sample"):
        yield f"<section><h2>Samples{name}</h2>{told_samples(samples)}</section>"
    yield f"<section><h2>Surroundings{name}</h2>{table(surroundings(one))}</section>"


def recipe(one: Told) -> str:
    """The page as it was given, whole below it, and the diagram."""
    given = one.run.path / "recipe.yaml"
    text = given.read_text(encoding="utf-8") if given.exists() else ""
    diagram = f'<div class="diagram">{inline(one.run.recipe)}</div>'
    return (
        f'<div class="recipe"><pre>{shown_lines(text)}</pre>{diagram}</div>'
        f"<details{' open' * ('extends:' in text)}><summary>every default written out</summary>"
        f"<pre>{shown_lines(one.run.recipe.resolved)}</pre></details>"
    )


def costs(one: Told) -> dict[str, str]:
    """What the model costs, and a step of its training."""
    found = one.costs
    each = found.per_token(found.train)
    memory = found.memory.total if found.memory else None
    rows = {
        "parameters": found.parameters,
        "active parameters": found.active_parameters,
        "FLOPs a token, forward": found.per_token(found.prefill),
        "FLOPs a token, forward and backward": each,
        "cache, bytes a token": found.cache_bytes_per_token,
    }
    counts = {name: "unknown" if n is None else f"{n:,}" for name, n in rows.items()}
    step = f"{found.batch} × {found.length} tokens"
    return counts | {f"memory of {step} in training": "unknown" if memory is None else told(memory)}


def surroundings(one: Told) -> dict[str, object]:
    """Where it was made, and how; what is empty is left out."""
    known = dict(one.run.environment)
    known["command"] = shlex.join(known.get("command", ()))
    return {k: ", ".join(v) if isinstance(v, list) else v for k, v in known.items() if v}


def events(one: Told) -> str:
    """What was out of the ordinary."""
    found = [e for e in one.events if e["event"] in ("spike", "not-finite")]
    if not found:
        return "<p>No spike, and every number finite.</p>"
    rows = {
        f"step {event['step']}: {event['event']}": ", ".join(
            f"{key} {value}" for key, value in event.items() if key not in ("event", "step")
        )
        for event in found[:MAX_EVENTS]
    }
    more = f"<p>and {len(found) - MAX_EVENTS} more</p>" if len(found) > MAX_EVENTS else ""
    return table(rows) + more


def told_samples(samples: Sequence[Mapping[str, Any]]) -> str:
    """Samples over training, evenly chosen where there are many; the last is open."""
    step = max(1, -(-len(samples) // MAX_SAMPLES))
    kept = list(samples)[::-1][::step][::-1]
    return "".join(
        f"<details{' open' * (sample is kept[-1])}><summary>step {sample['step']:,}</summary>"
        f"<pre>{shown_lines(sample['text'])}</pre></details>"
        for sample in kept
    )


def table(rows: Mapping[str, object]) -> str:
    cells = (
        f"<tr><th>{shown(str(name))}</th><td>{shown(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def shown_lines(text: str) -> str:
    return "\n".join(map(shown, text.split("\n")))


def write(runs: Sequence[Run], out: Path | None = None) -> Path:
    """Write the report of some runs: into the first one's folder, if nothing else is said."""
    path = out or runs[0].path / "report.html"
    replace_text(path, page(runs))
    return path
