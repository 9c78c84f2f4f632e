"""Whichever way attention is computed, the model is the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeAlias
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from blocks.call import Call
from blocks.mask import Visibility
from builder.laws.case import Case, gradients, read
from builder.laws.precision import attention_written_out, kernels
from builder.laws.probe import TOLERANCE, distance, first_difference, gradients_agree, whole
from builder.model import Model

NO_CAP = 2.0**100  # to whose tanh every score is a straight line

Route: TypeAlias = Callable[[], AbstractContextManager[Any]]


def every_attention_backend_agrees(case: Case) -> float:
    """By every kernel that can do the job, and by each way of ours, a model gives the same.

    Logits and gradients, of rows that are alike, beside padding, or in documents, by the seed.
    Compared with attention as its formula says it, under a mask that is written out for every pair;
    the texts are so long that windows are read in bands, where the context lets them.
    """
    model = case.model
    ids = case.ids(length=max([case.length, *(2 * span + 2 for span in _spans(model))]))
    given = _beside(case, ids)

    def run() -> Tensor:
        return read(model, ids, **given)

    with written_out(model):
        expected = run()
        pulls = gradients(model, case.weigh(expected))
    worst = 0.0
    for name, route in routes(model).items():
        with route():
            logits = run()
            found = gradients(model, case.weigh(logits))
        error = distance(logits.detach(), expected.detach())
        if not error <= TOLERANCE:
            by_it, by_formula = _within(route, run), _within(lambda: written_out(model), run)
            place = first_difference(model, by_it, by_formula, whole, whole)
            raise AssertionError(f"{name}, the logits differ by {error:.3g}, {place}")
        worst = max(worst, error, gradients_agree(found, pulls, name))
    return worst


def routes(model: Model) -> dict[str, Route]:
    """The ways that there are to compute a model's attention, by what is said of one that errs.

    A kernel that cannot do some attention's job, as torch sees it, leaves that to ``MATH``.
    """
    found: dict[str, Route] = {"as it is computed by itself": nullcontext}
    for kernel in kernels(torch.get_default_device().type, torch.float64):
        found[f"by {kernel.name}"] = lambda kernel=kernel: sdpa_kernel([kernel, SDPBackend.MATH])  # type: ignore[misc]
    found["under masks that are written out"] = lambda: masks_written_out(model)
    found["with scores that are written out"] = lambda: scores_written_out(model)
    found["with nothing that layers share"] = lambda: patch.object(Call, "once", _anew)
    return found


@contextmanager
def written_out(model: Model) -> Iterator[None]:
    """Attention by its formula, under a mask for every pair."""
    with masks_written_out(model), attention_written_out():
        yield


@contextmanager
def masks_written_out(model: Model) -> Iterator[None]:
    """Neither causal order nor a span spares a mask, and so there are no bands."""
    with ExitStack() as stack:
        for module, name, mask in _masks(model):
            stack.enter_context(patch.object(module, name, Opaque(mask)))
        yield


@contextmanager
def scores_written_out(model: Model) -> Iterator[None]:
    """Where no cap is asked for, one that bends nothing: no kernel has one."""
    with ExitStack() as stack:
        for module in {module for module, _, _ in _masks(model)}:
            if getattr(module, "softcap", NO_CAP) is None:
                stack.enter_context(patch.object(module, "softcap", NO_CAP))
        yield


def _anew(call: Call, key: object, compute: Callable[[], Any]) -> Any:
    """What one layer computes for all, computed by each: else the key leaves something out."""
    return compute()


class Opaque(Visibility):
    """A mask that says only which pairs see each other, not how far or in what order."""

    def __init__(self, mask: Visibility) -> None:
        self.mask, self.absolute = mask, mask.absolute

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        return self.mask.visible(i, j)


def _masks(model: Model) -> Iterator[tuple[nn.Module, str, Visibility]]:
    """Every module that has a mask, its name there, and the mask."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Visibility):
                yield module, name, value


def _spans(model: Model) -> Iterator[int]:
    return (mask.span for _, _, mask in _masks(model) if mask.span is not None)


def _beside(case: Case, ids: Tensor) -> dict[str, Tensor]:
    """Nothing, padding at the left of the first row, or documents, as the seed has it."""
    place = torch.arange(ids.shape[1]).expand(ids.shape)
    first = torch.arange(len(ids))[:, None] == 0
    choices = [{}, {"padding": first & (place < 2)}, {"documents": place // 7}]
    return random.Random(case.seed).choice(choices)


def _within(route: Route, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def taken() -> Tensor:
        with route(), torch.no_grad():
            return run()

    return taken
