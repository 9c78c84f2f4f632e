"""Initial weights, each drawn from a generator of its own: the key is (seed, parameter name).

Swap one block and every other weight stays the same to the bit, so that two variants are truly
paired.

"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from blocks.registry import register

Device: TypeAlias = torch.device | str | None
Dtype: TypeAlias = torch.dtype | None


@register("normal", kind="init")
class Normal:
    """Matrices from ``N(0, std)``; biases zero; gains as their block says.

    ``depth_scaled`` divides the matrices that write into the residual stream by the root of the
    number of residual additions of the model.
    Source: Radford et al. 2019 (GPT-2), section 2.3.
    """

    def __init__(self, *, std: float = 0.02, depth_scaled: bool = True) -> None:
        self.std, self.depth_scaled = std, depth_scaled

    def deviation(self, shape: torch.Size) -> float:
        return self.std


@register("fan_in", kind="init")
class FanIn:
    """Matrices from ``N(0, gain / sqrt(inputs))``; embeddings count as of one input.

    Source: LeCun et al. 1998, section 4.6.
    """

    def __init__(self, *, gain: float = 1.0, depth_scaled: bool = True) -> None:
        self.gain, self.depth_scaled = gain, depth_scaled

    def deviation(self, shape: torch.Size) -> float:
        return self.gain / math.sqrt(shape[-1])


@torch.no_grad()
def first_values(
    scheme: Normal | FanIn, seed: int, adds: int
) -> Callable[[str, nn.Parameter], Tensor]:
    """What each parameter begins as, by name; ``adds`` are additions to the residual stream."""
    shrink = 1 / math.sqrt(adds) if scheme.depth_scaled and adds else 1.0
    return lambda name, parameter: _first_value(parameter, name, scheme, seed, shrink)


def materialise(model: nn.Module, value: Callable[[str, nn.Parameter], Tensor]) -> None:
    """Replace every parameter by one that holds ``value(name, parameter)``; shared stay shared."""
    made: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                new = nn.Parameter(value(f"{path}.{name}" if path else name, parameter))
                new.__dict__.update(parameter.__dict__)
                made[id(parameter)] = new
            module.register_parameter(name, made[id(parameter)])


def _first_value(
    parameter: nn.Parameter, name: str, scheme: Normal | FanIn, seed: int, shrink: float
) -> Tensor:
    stacked = getattr(parameter, "stacked", False)
    initial = getattr(parameter, "initial", 0.0 if parameter.dim() - stacked == 1 else None)
    if initial is not None:
        value = torch.as_tensor(initial, dtype=torch.float32, device="cpu")
        return value.expand(parameter.shape).clone()
    std = scheme.deviation(parameter.shape) * (
        shrink if getattr(parameter, "output", False) else 1.0
    )
    if not stacked:
        return _noise(parameter.shape, seed, name) * std
    rows = [_noise(parameter.shape[1:], seed, name, e) for e in range(len(parameter))]
    return torch.stack(rows) * std


def _noise(shape: torch.Size, *key: object) -> Tensor:
    """Standard normal numbers, drawn on the CPU: the same for a model on any device."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(shape, generator=generator, device="cpu")
