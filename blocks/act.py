"""Activations: pointwise functions between the matrices of a feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.registry import Act, register


@register("relu", kind="act")
class Relu(nn.Module):
    """``max(x, 0)``.  Source: Nair and Hinton 2010."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


@register("relu2", kind="act")
class Relu2(nn.Module):
    """``max(x, 0)^2``.  Source: So et al. 2021 (Primer), arXiv:2109.08668."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


@register("gelu", kind="act")
class Gelu(nn.Module):
    """``x * Phi(x)``, exactly.  Source: Hendrycks and Gimpel 2016, arXiv:1606.08415."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


@register("gelu_tanh", kind="act")
class GeluTanh(nn.Module):
    """The tanh approximation of ``x * Phi(x)``, as in GPT and GPT-2.  Source: arXiv:1606.08415,
    section 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


@register("gelu_quick", kind="act")
class GeluQuick(nn.Module):
    """``x * sigmoid(1.702 x)``.  Source: arXiv:1606.08415, section 2."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


@register("silu", kind="act")
class Silu(nn.Module):
    """``x * sigmoid(x)``.  Source: Elfwing et al. 2017, arXiv:1702.03118."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


@register("sigmoid", kind="act")
class Sigmoid(nn.Module):
    """``1 / (1 + exp(-x))``, the gate of a GLU as it was first.  Source: arXiv:1612.08083."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@register("softplus", kind="act")
class Softplus(nn.Module):
    """``log(1 + exp(x))``.  Source: Dugas et al. 2000."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


@register("act", kind="map")
class Activation(nn.Module):
    """An activation by itself, on whatever meets it: ``act(x)``.

    Shapes: any, unchanged.
    Source: Devlin et al. 2018, arXiv:1810.04805 (between the matrix and the norm of its head).
    """

    def __init__(self, act: Act, /) -> None:
        super().__init__()
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(x)
        return y
