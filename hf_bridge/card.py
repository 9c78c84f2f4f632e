"""The model card: an exported folder's README.md, from the recipe and the run if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.graph import Filler

if TYPE_CHECKING:
    from builder.model import Model
    from builder.training.runs import Run

CARD = "README.md"


@dataclass(frozen=True)
class Story:
    """What a run knows of its model beside weights: the page as given, and its training's facts."""

    page: str
    facts: Mapping[str, str]


def write_card(
    out: Path, model: Model, written: str, why: str = "", story: Story | None = None
) -> None:
    """``written`` is the class; ``why`` says what keeps the model from a native one."""
    recipe = model.recipe
    story = story or Story(recipe.text, {})
    count = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "---",
        f"# {recipe.name}",
        "",
        f"A language model of {count:,} parameters, written as `{written}` and proved to give the",
        "logits of the model that it was made from.",
        *(["", f"No class of the library's own: {why}."] if why else []),
        "",
        "```python",
        *(["import hf_bridge  # knows the class"] if why else []),
        "from transformers import AutoModelForCausalLM",
        "",
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")',
        "```",
        *_table(story.facts),
        "",
        "## Recipe",
        "",
        "```yaml",
        *story.page.strip().splitlines(),
        "```",
    ]
    (out / CARD).write_text("\n".join(lines) + "\n", "utf-8")


def _table(facts: Mapping[str, str]) -> list[str]:
    rows = [f"| {name} | {value} |" for name, value in facts.items()]
    return ["", "## Training", "", "| | |", "|---|---|", *rows] if rows else []


def story_of(run: Run) -> Story:
    """A page that needs another is told with all of it worked in."""
    given = (run.path / "recipe.yaml").read_text("utf-8")
    whole = "\nextends:" not in f"\n{given}"
    return Story(given if whole else run.recipe.text, _facts(run))


def _facts(run: Run) -> dict[str, str]:
    """How the weights came about; of an imported run nothing is known."""
    events, train = run.metrics(), run.recipe.train
    steps = [event for event in events if event["event"] == "step"]
    if not steps:
        return {}
    length = train["length"] or run.recipe.graph.context
    facts = {
        "data": _named(run.recipe.data),
        "steps": f"{steps[-1]['step']:,}, each of {train['batch']} × {length} tokens",
        "optimizer": _named(train["optimizer"]),
        "training loss": f"{steps[-1]['loss']:.4f} nats a token",
    }
    if looks := [event for event in events if event["event"] == "validation"]:
        from builder.training.runs import score

        facts["validation"] = "{:.4f} {}".format(*score(looks[-1]))
    return facts


def _named(filler: Any) -> str:
    """What fills a section, without where its files lie."""
    return f"`{filler.word}`" if isinstance(filler, Filler) else "none"
