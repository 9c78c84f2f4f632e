"""What a model remembers between calls is as good as the tokens themselves."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from blocks.cache import Cache, KeyValues
from builder.construct import make
from builder.decode import Decoder, NotCompiled
from builder.graph import Edge, Filler, Leaf, leaves
from builder.laws.case import Case
from builder.laws.probe import TOLERANCE, agree, distance
from builder.model import Model, length_read

LONG = 4  # times a case's length: past the first buffer of a cache, so that it is moved
STEPS = 8


@torch.no_grad()
def cached_equals_full(case: Case) -> float:
    """Any chunking gives the logits of one forward; with padding or documents too."""
    model = case.model
    ids = case.ids(2, min(LONG * case.length, alike_up_to(model)))
    length = ids.shape[1]
    padding = torch.zeros_like(ids, dtype=torch.bool)
    padding[1, : length // 3] = True
    documents = (torch.arange(length)[None] >= torch.tensor([[length // 2], [length // 4]])).long()
    first = [1] * length if case.seed % 3 == 0 else pieces(length, case.seed)
    return max(
        _in_chunks_is_at_once(model, ids, first, {}),
        _in_chunks_is_at_once(model, ids, pieces(length, case.seed + 1), {"padding": padding}),
        _in_chunks_is_at_once(model, ids, pieces(length, case.seed + 2), {"documents": documents}),
    )


@torch.no_grad()
def fixed_steps_equal_full(case: Case) -> float:
    """Steps in tensors of fixed shapes, which can be compiled, give the logits of one forward; with
    padding too.  A block that asks what its numbers are has none.
    """
    model = case.model
    ids = case.ids(2, min(2 * case.length, alike_up_to(model)))
    length, first = ids.shape[1], max(1, ids.shape[1] // 3)
    padding = torch.zeros_like(ids, dtype=torch.bool)
    padding[1, : first - 1] = True
    worst = 0.0
    for given in (None, padding):
        cache = model.new_cache(len(ids))
        model(ids[:, :first], cache=cache, padding=None if given is None else given[:, :first])
        try:
            step = Decoder(model, cache, length, given, lower=lambda traced, example: traced)
        except NotCompiled:
            return 0.0
        full = model(ids, padding=given)
        for n in range(first, length):
            error = distance(step(ids[:, n : n + 1]), full[:, n])
            assert error <= TOLERANCE, f"a step of fixed shapes differs by {error:.3g} at place {n}"
            worst = max(worst, error)
    return worst


def alike_up_to(model: Model) -> int:
    """The longest text that is read in parts as it is at once."""
    context: int = model.recipe.graph.context
    return min(context, length_read(model) or context)


def pieces(length: int, seed: int) -> list[int]:
    """Lengths of chunks that add up to this one: single tokens, a few, or many."""
    chance, left, chunks = random.Random(seed), length, []
    while left:
        chunks.append(min(left, chance.choice([1, 1, 2, 3, 5, length])))
        left -= chunks[-1]
    return chunks


def _in_chunks_is_at_once(
    model: Model, ids: Tensor, chunks: Sequence[int], given: dict[str, Tensor]
) -> float:
    real = ~given.get("padding", torch.zeros_like(ids, dtype=torch.bool))
    claim = f"read in chunks of {chunks} with {list(given) or 'a cache'}"
    return agree(
        model,
        lambda: model(ids, **given),
        lambda: read_in_chunks(model, ids, chunks, **given),
        claim,
        lambda x: x[real],
        lambda x: x[real],
    )


def read_in_chunks(model: Model, ids: Tensor, chunks: Sequence[int], **given: Tensor) -> Tensor:
    """Logits of a new cache fed chunk by chunk; what is given is cut as the model wants it."""
    cache, logits = model.new_cache(len(ids)), []
    for chunk in chunks:
        start, end = len(cache), len(cache) + chunk
        first = {"padding": 0, "documents": start}
        extra = {name: x[:, first[name] : end] for name, x in given.items()}
        logits.append(model(ids[:, start:end], cache=cache, **extra))
        spoil(cache)
    return torch.cat(logits, 1)


def spoil(cache: Cache) -> None:
    """Fill what a cache holds and must not read with what would show: no number."""
    for state in cache.states.values():
        for spare in state.spare():
            spare.fill_(torch.nan)


@dataclass
class Edited:
    """A cache, and beside it the plain ids that it should stand for.

    ``kind`` is ``plain``, ``padding`` or ``documents``: each row begins with ``marks`` places of
    padding, or of another document.  What has been done is told in ``done``.
    """

    model: Model
    kind: str
    marks: Tensor  # (rows,)
    cache: Cache
    held: Tensor  # (rows, positions)
    done: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, model: Model, kind: str, marks: Sequence[int]) -> Edited:
        rows = len(marks)
        held = torch.zeros(rows, 0, dtype=torch.long)
        return cls(model, kind, torch.tensor(marks), model.new_cache(rows), held)

    @property
    def length(self) -> int:
        return self.held.shape[1]

    @property
    def room(self) -> int:
        """How many positions more the model can read as it would all at once."""
        return alike_up_to(self.model) - self.length

    def read(self, new: Tensor) -> float:
        """Read (rows, n) tokens; their logits are those of all that is held, read afresh."""
        error = self.goes_on_with(new)
        self.model(new, cache=self.cache, **self._given(self.length, new.shape[1], cached=True))
        spoil(self.cache)
        self.held = torch.cat([self.held, new], 1)
        self._did(f"read {new.shape[1]}")
        return error

    def goes_on_with(self, new: Tensor) -> float:
        """How far the cache, which stays as it is, gives other logits for these tokens."""
        both, count = torch.cat([self.held, new], 1), new.shape[1]
        given = self._given(self.length, count, cached=True)
        afresh = self._given(0, both.shape[1], cached=False)
        real = ~self._begins(both.shape[1])[:, -count:] if self.kind == "padding" else ...
        claim = f"a cache with {self.kind}, after {', '.join(self.done) or 'nothing'}"
        return agree(
            self.model,
            lambda: self.model(both, **afresh),
            lambda: self.model(new, cache=self.cache.fork(), **given),
            claim,
            lambda x: x[:, -count:][real],
            lambda x: x[real],
        )

    def crop(self, length: int) -> None:
        self.cache.crop(length)
        self.held = self.held[:, :length]
        self._did(f"crop to {length}")

    def fork(self) -> Edited:
        """An independent copy; this one goes on."""
        self._did("fork")
        return replace(self, cache=self.cache.fork(), done=list(self.done))

    def reorder(self, rows: Sequence[int]) -> None:
        chosen = torch.tensor(rows)
        self.cache.reorder(chosen)
        self.held, self.marks = self.held[chosen], self.marks[chosen]
        self._did(f"reorder {list(rows)}")

    def reset(self) -> None:
        self.cache.reset()
        self.held = self.held[:, :0]
        self._did("reset")

    def _did(self, what: str) -> None:
        self.done.append(what)
        told = len(self.cache)
        assert told == self.length, f"after {', '.join(self.done)} a cache says {told} positions"

    def _begins(self, length: int) -> Tensor:
        """Which of the first places are before the mark of their row, (rows, length)."""
        return torch.arange(length)[None] < self.marks[:, None]

    def _given(self, start: int, new: int, cached: bool) -> dict[str, Tensor]:
        marked = self._begins(start + new)
        if self.kind == "padding":
            return {"padding": marked}
        return {"documents": marked[:, start:].long()} if self.kind == "documents" else {}


@torch.no_grad()
def caches_can_be_edited(case: Case) -> float:
    """After any crops, forks, reorders and resets, a cache goes on as one just filled would."""
    chance = random.Random(case.seed)
    kind = chance.choice(["plain", "plain", "padding", "documents"])
    edited = Edited.new(case.model, kind, [chance.randint(0, 4) for _ in range(2)])
    worst = 0.0
    for step in range(STEPS):
        action = chance.choice(["read", "read", "read", "crop", "crop", "fork", "reorder", "reset"])
        if action == "crop":
            edited.crop(chance.randint(0, edited.length))
        elif action == "fork":
            edited, left = edited.fork(), edited
            left.reset()
        elif action == "reorder":
            edited.reorder([chance.randint(0, len(edited.held) - 1) for _ in range(2)])
        elif action == "reset":
            edited.reset()
        if edited.room < 1:
            continue
        count = min(edited.room, chance.choice([1, 2, 4, case.length]))
        new = case.other(case.seed + step).ids(2, count)
        onward = edited.read if action == "read" else edited.goes_on_with
        worst = max(worst, onward(new))
    return worst


@torch.no_grad()
def cache_size_is_known(case: Case) -> float:
    """A cache holds, to the byte, the keys and values that its masks can reach."""
    model, ids = case.model, case.ids()
    cache = model.new_cache(2)
    assert cache.nbytes == 0, f"an empty cache holds {cache.nbytes} bytes"
    model(ids, cache=cache)
    found = list(leaves(case.recipe.graph))
    mixers = [leaf for leaf in found if leaf.word == "attention"]
    numbers = sum(_kept(leaf, mixers, ids.shape[1]) for leaf in mixers)
    for leaf in found:
        if leaf.word == "latent_attention":
            options: dict[str, Any] = dict(leaf.options)
            numbers += (options["kv_rank"] + options["rope_dim"]) * _reach(leaf, ids.shape[1])
    expected = numbers * len(ids) * 8
    held = sum(s.nbytes for s in cache.states.values() if isinstance(s, KeyValues))
    assert held == expected, f"{held} bytes are held, not {expected}"
    return 0.0


def _kept(leaf: Leaf, mixers: Sequence[Leaf], length: int) -> int:
    """Numbers that an attention remembers of one row, for itself and for who reads its keys."""
    if leaf["kv_from"] is not None:
        return 0
    options: dict[str, Any] = dict(leaf.options)
    kept = max(_reach(other, length) for other in (leaf, *_readers(leaf, mixers)))
    return int(options["kv_heads"] * (options["head_dim"] + options["value_dim"])) * kept


def _readers(leaf: Leaf, mixers: Sequence[Leaf]) -> list[Leaf]:
    """Those that read an attention's keys, and those that read them from these."""
    own = [m for m in mixers if m["kv_from"] == Edge("keys_values", leaf.name)]
    return [reader for other in own for reader in (other, *_readers(other, mixers))]


def _reach(leaf: Leaf, length: int) -> int:
    mask = leaf["mask"]
    assert isinstance(mask, Filler)
    span: int | None = make(mask).span
    return length if span is None else min(length, span - 1)
