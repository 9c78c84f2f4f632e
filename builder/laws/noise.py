"""Weights in general position: as drawn for training, a fault could hide behind a zero or a one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
SPREAD = 0.3  # of gains round their first value, and of biases round zero


@torch.no_grad()
def perturb(model: M, seed: int, gain: float = 1.0) -> M:
    """Draw every weight anew by (seed, name): matrices of this gain, no gain at 1, no bias at 0."""
    for name, parameter in model.named_parameters():
        noise = noise_of(seed, name, parameter)
        first = getattr(parameter, "initial", 0.0 if parameter.dim() == 1 else None)
        spread = SPREAD if first is not None else gain / math.sqrt(parameter.shape[-1])
        start = torch.as_tensor(0.0 if first is None else first).to(parameter)
        parameter.copy_(start + spread * noise)
    return model


def stir(model: M, seed: int, size: float) -> M:
    """Let every module that has weights of its own read noise of this size too."""

    def add(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            first, *rest = given
            noisy = first.is_floating_point()  # ids are read as they are
            return (first + size * noise_of(seed, name, first) if noisy else first, *rest)

        return hook

    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(add(name))
    return model


def noise_of(seed: int, name: str, like: Tensor) -> Tensor:
    """Standard normal numbers of a tensor's shape and type, the same wherever the key is."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    noise = torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu")
    return noise.to(like)
