"""Continuing a prompt: greedy, or sampled by temperature, top-k and top-p."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.cache import Cache

if TYPE_CHECKING:
    from builder.decode import Decoder
    from builder.model import Model

TRIED = 8  # steps, until it is known how long one takes
SAVED = 0.5  # of a step, at the least, where it is compiled
STRIDE = 64  # positions: texts that need as much room, by such strides, share what is compiled
BASE, EACH = 8.0, 3.0  # seconds that compiling takes, and more for each kind of layer


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
    compile: bool | Literal["auto"] = False,
    int8: bool = False,
) -> Tensor:
    """Each row's prompt and up to ``max_new_tokens`` more, (B, T + new).

    ``temperature`` 0 takes the likeliest token.  ``top_k`` keeps the likeliest k, then ``top_p``
    the fewest that hold that much probability.  ``padding`` (B, T), True on the left of shorter
    prompts.  A row that reached a ``stop`` id repeats it; when all have, generation ends.  An empty
    prompt starts from the model's ``start_id``.  ``stream`` is called with each new column (B,);
    ``cache`` holds what was read before, and is left holding all but the last.

    ``compile`` makes the steps faster after some seconds, and ``auto`` does where that pays; one
    that cannot be compiled goes on as it is, with a warning.  ``int8`` rounds the matrices of
    compiled steps, on a CPU (``builder.int8`` says how far).
    Raises ValueError if the model cannot read so many positions, if a given cache is to be
    compiled, or if matrices are to be rounded elsewhere than on a CPU.
    """
    _check(temperature, top_k, top_p, max_new_tokens)
    if cache is not None and (compile or int8):
        raise ValueError("compiled steps keep a cache of their own, and none can be given")
    if int8 and ids.device.type != "cpu":
        raise ValueError(f"int8 is for a CPU, and the model is on {ids.device.type}")
    prompt = ids if ids.shape[1] else _start(model, ids)
    cache = model.new_cache(len(ids)) if cache is None else cache
    total = len(cache) + prompt.shape[1] + max_new_tokens - 1
    if model.limit is not None and total > model.limit:
        raise ValueError(f"{total} positions, and the model can read {model.limit}")
    generator = None if seed is None else torch.Generator(ids.device).manual_seed(seed)
    stops = torch.tensor(list(stop), dtype=ids.dtype, device=ids.device)
    done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    columns = [prompt]
    room = room_of(total)
    if padding is not None:
        padding = F.pad(padding, (0, room - padding.shape[1]))
    when = "now" if compile is True or int8 else "auto" if compile else "never"
    read = Reader(model, cache, total, room, padding, when, int8)
    with _evaluating(model):
        while len(columns) <= max_new_tokens and not bool(done.all()):
            chosen = choose(read(columns[-1]), temperature, top_k, top_p, generator)
            if stop:
                chosen = torch.where(done, columns[-1][:, -1], chosen)
                done = done | torch.isin(chosen, stops)
            columns.append(chosen[:, None])
            if stream is not None:
                stream(chosen)
    return torch.cat([ids, *columns[1:]], 1)


def room_of(total: int) -> int:
    """The room that compiled steps have for so many positions."""
    return -(-total // STRIDE) * STRIDE


@torch.no_grad()
def rounding_error(
    model: Model, ids: Tensor, max_new_tokens: int, padding: Tensor | None = None
) -> float:
    """What ``int8`` does to the likeliest tokens after a prompt, up to 8 of them: by how many nats
    the probabilities of a next token are off (their Kullback-Leibler divergence), in the mean.

    Raises NotCompiled if there are no such steps.
    """
    from builder.decode import Decoder

    room = room_of(ids.shape[1] + max_new_tokens - 1)
    padding = None if padding is None else F.pad(padding, (0, room - ids.shape[1]))
    with _evaluating(model):
        cache, decoder = model.new_cache(len(ids)), None
        found: list[Tensor] = []
        for _ in range(min(TRIED, max_new_tokens - 1) + 1):
            end = len(cache) + ids.shape[1]
            rounded = None if decoder is None else decoder(ids)
            seen = None if padding is None else padding[:, :end]
            exact = model(ids, cache=cache, padding=seen, last=True)[:, -1]
            if rounded is None:
                decoder = Decoder(model, cache, room, padding, int8=True)
            else:
                p, q = exact.log_softmax(-1), rounded.log_softmax(-1)
                found.append((p.exp() * (p - q)).sum(-1).mean())
            ids = exact.argmax(-1, keepdim=True)
    return float(torch.stack(found).mean()) if found else 0.0


@dataclass
class Reader:
    """Reads column after column, and gives the logits that follow: by the model, or by steps that
    are compiled, ``now``, ``never``, or if it pays (``auto``).
    """

    model: Model
    cache: Cache
    total: int  # positions
    room: int  # as many, or a few more
    padding: Tensor | None  # (B, room)
    when: str
    int8: bool
    decoder: Decoder | None = None
    steps: int = 0
    began: float = 0.0

    def __call__(self, ids: Tensor) -> Tensor:
        """The logits after these tokens: (B, T) to (B, vocab)."""
        if self.decoder is None and self.steps and self._pays():
            self._prepare()
        if self.decoder is not None:
            return self.decoder(ids)
        end = len(self.cache) + ids.shape[1]
        padding = None if self.padding is None else self.padding[:, :end]
        logits: Tensor = self.model(ids, cache=self.cache, padding=padding, last=True)
        self.steps += 1
        if self.steps == 1:  # the prompt is read
            self.began = time.perf_counter()
        return logits[:, -1]

    def _pays(self) -> bool:
        if self.when != "auto" or self.steps != TRIED:
            return self.when == "now"
        from builder.decode import cut

        seconds = (time.perf_counter() - self.began) / (TRIED - 1)
        kinds = len({key for key, _ in cut(self.model)})
        return (self.total - len(self.cache)) * seconds * SAVED > BASE + EACH * kinds

    def _prepare(self) -> None:
        from builder.decode import Decoder, NotCompiled

        try:
            self.decoder = Decoder(self.model, self.cache, self.room, self.padding, self.int8)
        except NotCompiled as error:
            warnings.warn(f"the steps are not compiled: {error}", stacklevel=2)
            self.when = "never"


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
