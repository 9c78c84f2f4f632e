"""Where a text stands does not matter to what knows only distances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from blocks.call import Call
from builder.graph import leaves
from builder.laws.case import Case
from builder.laws.probe import TOLERANCE, agree, whole

FAR = 100_000  # angles of so many radians are exact to 1e-11 in float64
OFFSETS = (1, 1000, FAR)


@torch.no_grad()
def positions_may_shift(case: Case) -> float:
    """What knows only distances gives the same logits wherever a text stands.

    A leaf of kind ``positions`` tells one place from another: with it a shift changes something,
    or it would be of no use, and without it nothing.  What says that it is ``absolute``, such as a
    mask of chunks, is asked for neither.
    """
    adding = {leaf.weights for leaf in leaves(case.recipe.graph) if leaf.kind == "positions"}
    if adding:
        moves = any(map(_moves, case.draws()))
        assert moves, "positions are added to the stream, and to shift them changes nothing"
    if any(_are_absolute(case)):
        return 0.0
    with _passed_over(case, adding):
        return max(
            _is_unmoved(case, offset, rows)
            for rows in (False, True)
            for offset in (OFFSETS[-1:] if rows else OFFSETS)
        )


def _is_unmoved(case: Case, offset: int, rows: bool) -> float:
    ids = case.ids()
    return agree(
        case.model,
        lambda: shifted(case, ids, 0, rows=rows),
        lambda: shifted(case, ids, offset, rows=rows),
        f"a text that begins at {offset} is not what it is at 0",
        whole,
        whole,
    )


@contextmanager
def _passed_over(case: Case, names: set[str]) -> Iterator[None]:
    """The model with these leaves left out, so that the others show what they know."""
    modules = [case.model.get_submodule(name) for name in names]
    for module in modules:
        module.forward = lambda x, **given: x
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def shifted(case: Case, ids: Tensor, offset: int, *, rows: bool = False) -> Tensor:
    """The logits if the first token stood at ``offset``; with ``rows`` each row counts its own
    positions, as beside padding, so that masks are asked about them too.
    """
    padding = torch.zeros_like(ids, dtype=torch.bool) if rows else None
    call: Call = case.model._call(ids, 0, None, padding)
    call.positions = call.positions + offset
    if call.counted is not None:
        call.counted = call.counted + offset
    return case.model._logits(call, None)


def _moves(case: Case) -> bool:
    """Whether some shift changes some logit by more than rounding; of the limit half is room."""
    limit = case.model.limit
    length = case.length if limit is None else min(case.length, max(1, limit // 2))
    ids = case.ids(2, length)
    room = FAR if limit is None else limit - ids.shape[1]
    there = shifted(case, ids, 0)
    for offset in sorted({1, 3, 7, room}):
        if 0 < offset <= room:
            far = (shifted(case, ids, offset) - there).abs().max()
            if float(far) > TOLERANCE * max(1.0, float(there.abs().max())):
                return True
    return False


def _are_absolute(case: Case) -> Iterator[bool]:
    """Of every module, and of the mask or whatever else it has: whether it says so."""
    for module in case.model.modules():
        yield from (getattr(part, "absolute", False) for part in (module, *vars(module).values()))
