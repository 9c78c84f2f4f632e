from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant, identity, one_hot
from blocks.registry import register


@register("hyper", kind="joiner")
class Hyper(nn.Module):
    """Hyper-connections: the branch reads a weighed sum of ``streams``, and each stream becomes a
    weighed sum of all, and of what the branch gives: ``h' = mix^T h + write f(read^T h)``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``, the streams side by side; the branch meets ``dim /
    streams``.  At first ``mix`` is the identity, ``write`` all 1, and ``read`` the stream of number
    ``first`` (modulo ``streams``).  ``dynamic`` adds ``scale * tanh(W norm(h))`` to all three, the
    matrix 0 and the scale 0.01 at first.
    Source: Zhu et al. 2024, arXiv:2409.19606, equations 1 to 14.
    """

    inner = "dim / streams"
    checks = {"dim % streams == 0": "a stream of width {dim} cannot be split into {streams}"}

    def __init__(self, dim: int, *, streams: int = 4, first: int = 0, dynamic: bool = True) -> None:
        super().__init__()
        self.streams, self.width = streams, dim // streams
        self.read = one_hot(first % streams, streams)
        self.mix = identity(streams)
        self.write = constant(1.0, streams)
        self.weigh = constant(0.0, streams + 2, self.width) if dynamic else None
        self.scale = constant(0.01, 3) if dynamic else None

    def forward(self, x: Tensor, body: Callable[[Tensor], Tensor]) -> Tensor:
        h = x.unflatten(-1, (self.streams, self.width))
        read, write, mix = self.weights(h)
        inside = (h * read.unsqueeze(-1)).sum(-2)
        mixed = mix.transpose(-1, -2) @ h
        return (mixed + write.unsqueeze(-1) * body(inside).unsqueeze(-2)).flatten(-2)

    def weights(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``read`` and ``write``, (..., streams), and ``mix``, (..., streams, streams)."""
        if self.weigh is None or self.scale is None:
            return self.read, self.write, self.mix
        moved = torch.tanh(F.linear(F.rms_norm(h, (self.width,)), self.weigh))
        read, write, mix = moved.split([1, 1, self.streams], -1)
        return (
            self.read + self.scale[0] * read.squeeze(-1),
            self.write + self.scale[1] * write.squeeze(-1),
            self.mix + self.scale[2] * mix,
        )
