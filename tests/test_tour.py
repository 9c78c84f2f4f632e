"""The tour is run, cell by cell, and what it shows is what it says."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT

TOUR = ROOT / "docs/tour.ipynb"
pytestmark = pytest.mark.slow


def cells() -> list[str]:
    found = json.loads(TOUR.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> Any:
    """A cell, as a notebook runs it; what its last line is."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return (
        None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What each cell shows, run in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tour"))
        names: dict[str, Any] = {}
        return [run(source, names) for source in cells()], names


def test_every_cell_runs_and_the_model_has_learnt(shown):
    found, _ = shown
    assert len(found) == len(cells()) >= 10
    accuracy = next(value for value in found if isinstance(value, float))
    assert accuracy > 0.95


def test_the_map_shows_what_the_text_says_it_does(shown):
    """Every answer is read from the place that holds it."""
    _, names = shown
    assert names["right"].all()


def test_diagram_lens_map_and_table_show_themselves(shown):
    found, _ = shown
    pictures = [value for value in found if hasattr(value, "_repr_html_")]
    kinds = [type(value).__name__ for value in pictures]
    assert kinds == ["Recipe", "Inside", "Heat", "Ablation"]
    assert all(value._repr_html_().startswith(("<svg", "\n<svg", "<table")) for value in pictures)


def test_the_notebook_is_stored_with_what_it_showed():
    """Run, for who only reads it; and small, so that a change of it can be read."""
    stored = json.loads(TOUR.read_text("utf-8"))
    outputs = [cell["outputs"] for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert sum(map(bool, outputs)) >= 9 and TOUR.stat().st_size < 200_000
    assert not [o for cell in outputs for o in cell if o["output_type"] == "error"]
    assert "/work/" not in TOUR.read_text() and "/tmp/" not in TOUR.read_text()
    assert Path(TOUR).name == "tour.ipynb"
