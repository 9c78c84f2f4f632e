"""What tests of single blocks give them: weights in general position, streams, calls."""

from __future__ import annotations

import torch

from blocks.call import start_call
from builder.laws import perturb

B, T, DIM, HEADS, FF = 2, 9, 8, 4, 5
EXACT = {"rtol": 0, "atol": 1e-12}  # sums of a few dozen float64 products


def given(module, seed=0):
    """A block in float64 with every weight in general position."""
    return perturb(module.double(), seed).eval()


def stream(seed=0, *shape):
    return torch.randn(
        *(shape or (B, T, DIM)), generator=torch.Generator().manual_seed(seed)
    ).double()


def call_of(padding=None, documents=None, start=0, length=T):
    ids = torch.zeros(B, length, dtype=torch.long)
    return start_call(ids, start, documents, padding)
