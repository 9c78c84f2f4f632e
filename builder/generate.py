"""Continuing a prompt: greedy, or sampled by temperature, top-k and top-p."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blocks.cache import Cache

if TYPE_CHECKING:
    from builder.model import Model


@torch.no_grad()
def generate(
    model: Model,
    ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Sequence[int] = (),
    padding: Tensor | None = None,
    stream: Callable[[Tensor], None] | None = None,
    cache: Cache | None = None,
) -> Tensor:
    """Each row's prompt and up to ``max_new_tokens`` more, (B, T + new).

    ``temperature`` 0 takes the likeliest token.  ``top_k`` keeps the likeliest k, then ``top_p``
    the fewest that hold that much probability.  ``padding`` (B, T), True on the left of shorter
    prompts.  A row that reached a ``stop`` id repeats it; when all have, generation ends.  An empty
    prompt starts from the model's ``start_id``.  ``stream`` is called with each new column (B,);
    ``cache`` holds what was read before, and is left holding all but the last.
    Raises ValueError if the model cannot read so many positions.
    """
    _check(temperature, top_k, top_p, max_new_tokens)
    prompt = ids if ids.shape[1] else _start(model, ids)
    cache = model.new_cache(len(ids)) if cache is None else cache
    total = len(cache) + prompt.shape[1] + max_new_tokens - 1
    if model.limit is not None and total > model.limit:
        raise ValueError(f"{total} positions, and the model can read {model.limit}")
    generator = None if seed is None else torch.Generator(ids.device).manual_seed(seed)
    stops = torch.tensor(list(stop), dtype=ids.dtype, device=ids.device)
    done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    columns = [prompt]
    with _evaluating(model):
        while len(columns) <= max_new_tokens and not bool(done.all()):
            logits = model(columns[-1], cache=cache, padding=padding)[:, -1]
            chosen = choose(logits, temperature, top_k, top_p, generator)
            chosen = torch.where(done, columns[-1][:, -1], chosen)
            done = done | torch.isin(chosen, stops)
            columns.append(chosen[:, None])
            if padding is not None:
                padding = torch.cat([padding, padding.new_zeros(len(ids), 1)], 1)
            if stream is not None:
                stream(chosen)
    return torch.cat([ids, *columns[1:]], 1)


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Without dropout; afterwards as before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def choose(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One token a row, (B, vocab) -> (B,)."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(
        probabilities(logits, temperature, top_k, top_p), 1, generator=generator
    )[:, 0]


def probabilities(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """What is sampled from, (B, vocab); float32 at the least.

    Of equals the first is the likelier, as for the likeliest of all: so ``top_k`` keeps no more
    than k, and 1 is greedy.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # no overflow when near 0
    if top_k is None and top_p is None:
        return logits.softmax(-1)
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[:, top_k:] = float("-inf")
    if top_p is not None:
        held = ordered.softmax(-1)
        enough = held.cumsum(-1) - held >= top_p  # before this one; so the first always stays
        ordered = ordered.masked_fill(enough, float("-inf"))
    return torch.zeros_like(logits).scatter(-1, order, ordered.softmax(-1))


def _check(temperature: float, top_k: int | None, top_p: float | None, max_new_tokens: int) -> None:
    if temperature < 0:
        raise ValueError(f"temperature={temperature} is below 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} is below 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} is not above 0 and up to 1")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} is below 0")


def _start(model: Model, ids: Tensor) -> Tensor:
    if model.start_id is None:
        raise ValueError("an empty prompt, and the model knows no token to start from")
    return torch.full((len(ids), 1), model.start_id, dtype=ids.dtype, device=ids.device)
