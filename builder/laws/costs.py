"""What a recipe is said to cost before it is built is what its model costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from builder.laws.case import Case
from builder.measure import measure
from builder.model import build


def costs_are_known(case: Case) -> float:
    """Parameters, FLOPs and cache bytes are the built model's; what is unknown is not asked."""
    recipe, length = case.recipe, case.ids().shape[1]
    said, model = measure(recipe, length, dtype="fp32", training=False), build(recipe).eval()
    ids = case.ids(1)
    cache = model.new_cache(1)
    found: dict[str, int] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "prefill": flops_of(lambda: model(ids)),
    }
    if length > 1:
        model(ids[:, :-1], cache=cache)
    found["decode"] = flops_of(lambda: model(ids[:, -1:], cache=cache))
    found["cache_bytes"] = cache.nbytes
    for name, count in found.items():
        expected = getattr(said, name)
        told = f"{name.replace('_', ' ')}: {expected} are said, and the model's are {count}"
        assert expected in (None, count), told
    return 0.0


def flops_of(run: Callable[[], object]) -> int:
    """FLOPs of a run on the CPU, attention's two products made where they can be counted."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    count: int = counter.get_total_flops()
    return count
