"""Two runs that should agree, and the first leaf where they do not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from builder.graph import leaves
from builder.model import Model

TOLERANCE = 1e-9  # relative to the largest entry above 1; rounding in float64 is near 1e-15

Run: TypeAlias = Callable[[], Tensor]
Part: TypeAlias = Callable[[Tensor], Tensor]


def agree(
    model: Model, left: Run, right: Run, claim: str, left_part: Part, right_part: Part
) -> float:
    """The largest difference between two runs' logits, each in its part, if it is rounding.

    Else AssertionError, naming the first leaf whose outputs differ.
    """
    error = distance(left_part(left()), right_part(right()))
    if error <= TOLERANCE:
        return error
    place = first_difference(model, left, right, left_part, right_part)
    raise AssertionError(f"{claim}: the logits differ by {error:.3g}, {place}")


def whole(x: Tensor) -> Tensor:
    """All of it, as a part."""
    return x


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry above 1; infinite for no number."""
    if a.shape != b.shape:
        return float("inf")
    if a.numel() == 0:
        return 0.0
    error = float((a - b).abs().max()) / max(1.0, float(b.abs().max()))
    return error if error == error else float("inf")


def gradients_agree(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], claim: str
) -> float:
    """The largest difference between gradients, relative to the largest entry of them all above 1.

    One that cancels to almost nothing is as coarse as what flowed in from the others.
    AssertionError where it is more than rounding, naming the first such parameter.
    """
    size = max(1.0, *(float(gradient.abs().max()) for gradient in expected.values()))
    worst = 0.0
    for name, gradient in expected.items():
        error = float((found[name] - gradient).abs().max()) / size
        assert error <= TOLERANCE, f"{claim}, the gradient of {name} differs by {error:.3g}"
        worst = max(worst, error)
    return worst


def first_difference(model: Model, left: Run, right: Run, left_part: Part, right_part: Part) -> str:
    """In words: the first leaf, in order of execution, whose output differs."""
    with traced(model) as seen:
        left()
    with traced(model) as also:
        right()
    for (name, turn), output in seen.items():
        ours, theirs = torch.cat(output, 1), torch.cat(also.get((name, turn), output), 1)
        if distance(left_part(ours), right_part(theirs)) > TOLERANCE:
            return f"first after {name}" + (f", its use {turn}" if turn > 1 else "")
    return "though no leaf's output does"


@contextmanager
def traced(model: Model) -> Iterator[dict[tuple[str, int], list[Tensor]]]:
    """Collects every leaf's output at each of its uses, one tensor a call of the model."""
    outputs: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    uses: Counter[str] = Counter()
    names = dict.fromkeys(leaf.weights for leaf in leaves(model.recipe.graph))
    modules = dict(model.named_modules())

    def record(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, given: object, output: Tensor) -> None:
            uses[name] += 1
            outputs[name, uses[name]].append(output.detach())

        return hook

    handles = [model.register_forward_pre_hook(lambda module, given: uses.clear())]
    handles += [modules[n].register_forward_hook(record(n)) for n in names if n in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
