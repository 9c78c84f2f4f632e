"""What training does round each layer: dropout by a key of its own, activations kept or not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocks.cache import Cache
from blocks.call import Call
from builder.assemble import Run
from builder.model import Model


@dataclass
class Dropout:
    """Seeds what dropout draws, by (seed, step, part, layer): resuming needs no state of a
    generator, and what one layer draws shifts no other's.
    """

    seed: int
    device: torch.device
    step: int = 0
    part: int = 0

    def begin(self, step: int, part: int) -> None:
        """Part ``part`` of the batch of a step; what stands before the layers draws by these."""
        self.step, self.part = step, part
        self.draw(-1)

    def draw(self, layer: int) -> None:
        key = repr((self.seed, self.step, self.part, layer)).encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        self._generator.manual_seed(int.from_bytes(digest, "big") >> 1)

    @property
    def _generator(self) -> torch.Generator:
        """Torch's own of the device, which its dropout draws from."""
        if self.device.type != "cuda":
            return torch.default_generator
        return torch.cuda.default_generators[self.device.index or 0]


@dataclass(eq=False)
class Layer:
    """One layer as it runs in training, if need be ``compiled``; out of it, as it is."""

    run: Run
    body: nn.Module
    index: int
    dropout: Dropout | None
    recompute: bool
    compiled: Run | None = None

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        if not self.body.training:
            return self.run(x, call, cache)
        if not self.recompute:
            return self.drawn(x, call, cache)
        found: Tensor = checkpoint(  # what it draws is drawn by key, and needs no saved state
            self.drawn, x, call, cache, use_reentrant=False, preserve_rng_state=False
        )
        return found

    def drawn(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        if self.dropout is not None:
            self.dropout.draw(self.index)
        return (self.compiled or self.run)(x, call, cache)


def around_layers(model: Model, dropout: Dropout | None, recompute: bool) -> None:
    """Make every layer of a model one that trains so; without ``dropout`` it draws as it comes."""
    for index, body in enumerate(getattr(model, "layers", ())):
        body.run = Layer(body.run, body, index, dropout, recompute)
