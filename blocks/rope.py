from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from blocks.call import Call
from blocks.registry import Scaling, register
from blocks.scaling import Unscaled


@register("rope", kind="position")
class Rope(nn.Module):
    """Rotary positions: each pair of a query's or key's components turns by ``position * theta^(-2i
    / rotated)``.

    Shapes: ``(B, heads, T, head_dim)``, unchanged, of queries or of keys; the first ``fraction *
    head_dim`` components, rounded down, are ``rotated``.  ``pairs: half`` couples component ``i``
    with ``i + rotated/2`` (the Hugging Face layout), ``interleaved`` with its neighbour (the
    paper's).  ``reversed`` turns the other way, which tells no other distances.  ``scaling``
    changes the angles for longer texts.  Angles are exact: computed in float64.
    Source: Su et al. 2021, arXiv:2104.09864, section 3.2.2; fraction: GPT-NeoX, arXiv:2204.06745;
    reversed: nanochat.
    """

    checks = {
        "not (floor(head_dim * fraction) % 2 == 1 and head_dim * fraction >= 2)": "rotary pairs "
        "need an even number of components, which head_dim={head_dim} * fraction={fraction} is not",
        "head_dim * fraction >= 2": "head_dim={head_dim} * fraction={fraction} has no rotary pair",
        "theta > 0": "theta={theta} is not above 0",
        "0 < fraction and fraction <= 1": "fraction={fraction} is not above 0 and up to 1",
    }
    bias = None

    def __init__(
        self,
        head_dim: int,
        *,
        theta: float = 10000.0,
        fraction: float = 1.0,
        pairs: Literal["half", "interleaved"] = "half",
        reversed: bool = False,
        scaling: Scaling | None = None,
    ) -> None:
        super().__init__()
        self.theta, self.pairs, self.rotated = theta, pairs, int(head_dim * fraction)
        self.scaling = Unscaled() if scaling is None else scaling()
        self.sense = -1 if reversed else 1
        self.reads_length = self.scaling.reads_length

    def rotate(self, x: Tensor, call: Call) -> Tensor:
        key = ("rope", self.theta, self.rotated, self.scaling, self.sense, x.dtype)
        cos, sin = call.once(key, lambda: self.table(call.positions, call.lengths(), x.dtype))
        turning, rest = x[..., : self.rotated], x[..., self.rotated :]
        if self.pairs == "half":
            a, b = turning.chunk(2, -1)
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        else:
            a, b = turning[..., 0::2], turning[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        return turned if rest.shape[-1] == 0 else torch.cat([turned, rest], -1)

    def table(
        self, positions: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (1 or B, 1, T, rotated / 2)."""
        turn = self.scaling.frequencies(self.theta, self.rotated, lengths)
        angles = self.sense * positions[..., None] * turn
        gain = self.scaling.gain(lengths)
        cos, sin = (angles.cos() * gain).to(dtype), (angles.sin() * gain).to(dtype)
        return cos[:, None], sin[:, None]
