from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from blocks.call import Call
from blocks.registry import register


@register("alibi", kind="position")
class Alibi(nn.Module):
    """Attention with linear biases: a score falls by ``slope * distance``, another slope for each
    head.

    Shapes: the bias is ``(heads, ..., q, k)``; queries and keys stay as they are.  Slopes are
    ``2^(-8 h / heads)`` for ``h`` from 1; where ``heads`` is no power of two, those of the power
    below, then every other one of the power above.
    Source: Press et al. 2021, arXiv:2108.12409, section 3 and appendix (the authors' code for other
    head counts).
    """

    checks = {"qk_norm_at != 'after'": "alibi rotates nothing that the qk_norm could stand after"}
    rotates = False

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slopes = tuple(slopes(heads))

    def rotate(self, x: Tensor, call: Call) -> Tensor:
        return x

    def bias(self, i: Tensor, j: Tensor, call: Call) -> Tensor:
        slope = torch.tensor(self.slopes, dtype=torch.float64, device=i.device)
        return slope.view(-1, *[1] * i.dim()) * (j - i)  # (heads, ..., q, k)


@register("alibi_rounded", kind="position")
class AlibiRounded(nn.Module):
    """Alibi as Falcon computes it: ``slope * key position`` in bfloat16, divided as the scores are
    by ``sqrt(head_dim)``.

    Shapes: the bias is ``(heads, ..., q, k)``.  To the softmax it is what alibi's distance is, but
    for the rounding, which depends on where a text stands.
    Source: Almazrouei et al. 2023, arXiv:2311.16867, and the library's code.
    """

    checks = {
        "qk_norm_at != 'after'": "alibi_rounded rotates nothing that the qk_norm could stand after"
    }
    rotates, absolute = False, True

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.slopes, self.scale = tuple(slopes(heads)), head_dim**-0.5

    def rotate(self, x: Tensor, call: Call) -> Tensor:
        return x

    def bias(self, i: Tensor, j: Tensor, call: Call) -> Tensor:
        place = call.position(j)
        slope = torch.tensor(self.slopes, dtype=torch.bfloat16, device=i.device)
        rounded = slope.view(-1, *[1] * place.dim()) * place.to(torch.bfloat16)
        return rounded.to(torch.float64) * self.scale


def slopes(heads: int) -> list[float]:
    """The slope of each head, steepest first within a power of two."""
    power = 2 ** int(math.log2(heads))
    ours = [2.0 ** (-8 * (h + 1) / power) for h in range(power)]
    return ours + slopes(2 * power)[0::2][: heads - power] if heads > power else ours
