"""Ablations of a moment, for tests: a page in a folder, and a queue that trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from builder.ablation.cells import Cell, Result
from builder.read import dump
from tests.tiny_runs import PAGE, text_of

TRAIN = {"steps": 3, "batch": 4, "lr": 0.01, "length": 24, "eval_tokens": 200}


def page(**train: Any) -> dict[str, Any]:
    """Without dropout, which would hide what differs."""
    blocks = {
        "decoder": [
            {"residual": ["rmsnorm", {"attention": {"position": "rope"}}]},
            {"residual": ["rmsnorm", "glu"]},
        ]
    }
    model = ["token_embedding", {"repeat": 2, "block": "decoder"}, "rmsnorm", "lm_head"]
    return {**PAGE, "blocks": blocks, "model": model, "train": {**TRAIN, **train}}


def settled(folder: Path, **train: Any) -> Path:
    """A folder with a text, and a page that trains on it; the page's path."""
    (folder / "text.txt").write_text(text_of(0, 1500), encoding="utf-8")
    path = folder / "tiny.yaml"
    path.write_text(dump(page(**train)), encoding="utf-8")
    return path


class Imagined:
    """A queue whose results are made up; it notes what was asked of it."""

    def __init__(self, result: Callable[[Cell], Result]) -> None:
        self.result, self.asked = result, list[Cell]()

    def run(self, cells: Iterable[Cell]) -> dict[str, Result]:
        found = {cell.key: cell for cell in cells}
        self.asked += found.values()
        return {key: self.result(cell) for key, cell in found.items()}


def came_to(loss: float, status: str = "done", **numbers: float) -> Result:
    if status == "failed":
        return Result("failed", {}, error="error[x]: it failed")
    return Result(status, {"loss": loss, "choosing": loss, **numbers}, seconds=1.5)
