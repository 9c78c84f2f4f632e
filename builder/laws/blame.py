"""Which leaf is at fault where a law failed, and where it is written."""

from __future__ import annotations

import copy
import re
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import torch

from builder.assemble import LeafRun
from builder.errors import Mark
from builder.graph import Graph, Leaf, leaves
from builder.index import ROOT
from builder.laws.case import Case
from builder.laws.options import words_of
from builder.laws.probe import traced

OF_WORD = re.compile(r"\b\w+ of (\w+):")  # as the law of options names one
NO_NUMBER = "gives what is no finite number"

Frames: TypeAlias = list[tuple[FrameType, int]]  # outermost first, each with its line


@dataclass(frozen=True)
class Blame:
    """What is wrong, in a sentence; at which leaf, and where that is written, if they are known.

    ``fault`` is what may break many laws at once: an exception at its place, or a leaf that gives
    no number, or one of another type.
    """

    says: str
    leaf: str | None = None
    mark: Mark | None = None
    fault: str = ""


def blame(error: Exception, case: Case) -> Blame:
    """The first of these that is known: the leaf whose plug-in raised, that which the law names,
    that which gives what is no number or of another type, and that which ran.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    theirs = _in_plugins(frames, case.recipe.plugins)
    says = (str(error).strip() or "no reason given").splitlines()[0]
    fault = ""
    if theirs or not isinstance(error, AssertionError):
        place = theirs or _ours(frames)
        says = f"{type(error).__name__}: {says}, raised at {place}"
        fault = f"{type(error).__name__} at {place}"
    if (mark := _of_word(says, case.recipe.graph)) is not None:
        return Blame(says, None, mark, fault)
    leaf = _running(frames) if theirs else _named(says, case.recipe.graph)
    unsound = None if theirs else first_unsound(case)
    if unsound is not None and (leaf in (None, unsound[0]) or unsound[1] == NO_NUMBER):
        leaf, fault = unsound[0], " ".join(unsound)
        says = f"{says}; {fault}"
    leaf = leaf or _running(frames)
    marks = (known.mark for known in leaves(case.recipe.graph) if known.name == leaf)
    return Blame(says, leaf, next(marks, None), fault)


def first_unsound(case: Case) -> tuple[str, str] | None:
    """The first leaf that gives an infinity, a NaN or another type than the model's, and which."""
    with suppress(Exception):  # a model that cannot be made, or run, is told of as it is
        for dtype in (torch.float64, torch.float32):
            model = copy.deepcopy(case.model).to(dtype)
            with traced(model) as outputs, torch.no_grad(), suppress(Exception):
                model(case.ids())
            for (name, _), (output, *_) in outputs.items():
                if not output.isfinite().all():
                    return name, NO_NUMBER
                if output.dtype != dtype:
                    return name, f"gives {output.dtype} in a model of {dtype}"
    return None


def _of_word(says: str, graph: Graph) -> Mark | None:
    """Where the word is written of which a sentence names an option."""
    found = OF_WORD.search(says)
    words = (word for word in words_of(graph) if found and word.word == found[1])
    return next((word.mark for word in words), None)


def _in_plugins(frames: Frames, plugins: Sequence[Path]) -> str:
    """The file and line of the innermost frame in a plug-in, or nothing."""
    files = {str(path.resolve()): path for path in plugins}
    found = ((files.get(frame.f_code.co_filename), line) for frame, line in reversed(frames))
    return next((f"{path}:{line}" for path, line in found if path is not None), "")


def _ours(frames: Frames) -> str:
    """The file and line of the innermost frame that is ours."""
    found = ((Path(frame.f_code.co_filename), line) for frame, line in reversed(frames))
    ours = ((path, line) for path, line in found if path.is_relative_to(ROOT))
    return next(f"{path.relative_to(ROOT)}:{line}" for path, line in ours)


def _running(frames: Frames) -> str | None:
    """The leaf that was run, or made, when something was raised."""
    for frame, _ in reversed(frames):
        known = frame.f_locals
        if isinstance(run := known.get("self"), LeafRun):
            return run.name
        if isinstance(leaf := known.get("leaf"), Leaf):
            return leaf.name
    return None


def _named(says: str, graph: Graph) -> str | None:
    """The first leaf that a sentence names, itself or by one of its parameters."""
    names = {leaf.name for leaf in leaves(graph)}
    for word in re.findall(r"\w[\w.]*\w", says):
        parts = word.split(".")
        for end in range(len(parts), 0, -1):
            if (name := ".".join(parts[:end])) in names:
                return name
    return None
