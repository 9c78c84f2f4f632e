"""Latent attention against its paper's other form: keys and values are never made, a head's
queries are taken to the latent instead.
"""

from __future__ import annotations

import math

import pytest
import torch

from blocks.latent_attention import LatentAttention
from blocks.mask import SlidingWindow
from blocks.registry import maker
from tests.given import DIM, EXACT, HEADS, B, T, call_of, given, stream

OWN, SHARED, VALUE, RANK = 3, 2, 5, 6
OPTIONS = {
    "plain": {},
    "a latent of queries": {"q_rank": 4},
    "biases": {"q_rank": 4, "bias": True, "out_bias": True},
    "scale and cap": {"scale": 0.7, "softcap": 0.8},
    "another norm": {"norm": maker("layernorm")},
    "a window": {"mask": lambda: SlidingWindow(3)},
    "rope": {"position": maker("rope", theta=50.0, pairs="interleaved")},
}


def latent_attention(**options):
    return given(LatentAttention(DIM, HEADS, OWN, SHARED, VALUE, RANK, **options))


def absorbed(block, x, call, scale=(OWN + SHARED) ** -0.5):
    """Head by head: scores are (W_k^T q) . latent + turned q . turned shared key."""
    down = block.kv_down(x)
    latent, shared = block.kv_norm(down[..., :RANK]), down[..., RANK:]
    q = block.q_up(block.q_norm(block.q_down(x))) if hasattr(block, "q_up") else block.q(x)
    visible = torch.ones(T, T).tril().bool()
    if isinstance(block.mask, SlidingWindow):
        visible &= torch.ones(T, T).triu(-2).bool()
    heads = []
    for h in range(HEADS):
        start = h * (OWN + SHARED)
        own, turning = q[..., start : start + OWN], q[..., start + OWN : start + OWN + SHARED]
        to_key, to_value = block.kv_up.weight.unflatten(0, (HEADS, -1))[h].split([OWN, VALUE])
        scores = (
            own @ to_key @ latent.mT + turned(block, turning, call) @ turned(block, shared, call).mT
        )
        scores = scores * scale
        if block.softcap is not None:
            scores = block.softcap * torch.tanh(scores / block.softcap)
        weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
        heads.append(weights @ latent @ to_value.mT)
    return block.o(torch.cat(heads, -1))


def turned(block, x, call):
    return x if block.position is None else block.position.rotate(x[:, None], call)[:, 0]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@torch.no_grad()
def test_it_is_attention_over_the_latent(options):
    block, x, call = latent_attention(**options), stream(), call_of()
    scale = {"scale": options["scale"]} if "scale" in options else {}
    torch.testing.assert_close(block(x, call), absorbed(block, x, call, **scale), **EXACT)


def test_its_cache_is_the_latent_and_one_key_for_all_heads():
    block = latent_attention()
    state = block.state()
    with torch.no_grad():
        block(stream(), call_of(), state)
    assert [(b.shape[0], b.shape[1], b.shape[3]) for b in state.buffers] == [
        (B, 1, RANK),
        (B, 1, SHARED),
    ]
