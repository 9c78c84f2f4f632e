"""The model: what a recipe builds, and what people call."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.cache import Cache
from blocks.call import Call, start_call
from builder import generate as generation
from builder import initial
from builder.assemble import Assembler, count_adds
from builder.construct import import_plugins, make
from builder.graph import Filler
from builder.recipe import Recipe

IGNORED = -100  # a label that does not count


class Model(nn.Module):
    """A decoder-only language model: token ids ``(B, T)`` to logits ``(B, T, vocab)``.

    Every leaf of the recipe is a submodule under its parameters' name.  ``recipe`` is what it was
    built from, ``limit`` how many positions it can read (None: any number), ``start_id`` the token
    that an empty prompt starts from, if known.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.start_id: int | None = None
        assembler = Assembler()
        self._run = assembler.into(self, recipe.graph)
        self._stateful = assembler.states
        limits = [int(m.limit) for m in self.modules() if hasattr(m, "limit")]  # type: ignore[arg-type]
        self.limit: int | None = min(limits, default=None)

    def forward(
        self,
        ids: Tensor,
        *,
        cache: Cache | None = None,
        padding: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """The logits of every given token.

        Shapes: ids ``(B, T)`` int64; padding ``(B, S)`` bool, True where there is no token, at
        either end of a row, over the cached positions too; documents ``(B, T)`` int, one number a
        document.  With a cache (inference: no gradients) the tokens follow those read before, in
        any chunks.  Raises ValueError if shapes disagree.
        """
        if cache is None:
            return self._logits(self._call(ids, 0, documents, padding), None)
        before = len(cache)
        try:
            with torch.no_grad():
                unread, read = cache.extend(ids, documents)
                call = self._call(unread, read, cache.documents, padding)
                return self._logits(call, cache)[:, -ids.shape[1] :]
        except BaseException:  # Ctrl-C too: a call that fails leaves the cache as it was
            cache.crop(before)
            raise

    def loss(
        self,
        ids: Tensor,
        labels: Tensor,
        padding: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Mean cross entropy in nats over the labels that are not -100, and the blocks' own losses.

        ``labels[b, t]`` is the token expected after ``ids[b, t]``.  With no label at all the mean
        is 0.
        """
        return self.logits_and_loss(ids, labels, padding, documents)[1]

    def logits_and_loss(
        self,
        ids: Tensor,
        labels: Tensor,
        padding: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What ``forward`` and ``loss`` give, in one pass."""
        call = self._call(ids, 0, documents, padding)
        logits = self._logits(call, None)
        flat = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
        total = F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return logits, sum(call.losses, total / (labels != IGNORED).sum().clamp(min=1))

    def new_cache(self, batch_size: int) -> Cache:
        """An empty memory for ``batch_size`` rows."""
        return Cache({site: held.state() for site, held in self._stateful.items()}, batch_size)

    generate = generation.generate

    def _call(
        self, ids: Tensor, read: int, documents: Tensor | None, padding: Tensor | None
    ) -> Call:
        if ids.dim() != 2 or ids.shape[1] == 0:
            raise ValueError(f"ids of shape {tuple(ids.shape)}: (B, T) is read, with T at least 1")
        total = (ids.shape[0], read + ids.shape[1])
        for name, given in (("padding", padding), ("documents", documents)):
            if given is not None and tuple(given.shape) != total:
                shape = tuple(given.shape)
                raise ValueError(f"{name} of shape {shape}, and {total} is read, cached or new")
        if padding is not None:
            begins = F.pad(~padding, (1, 0)).int().diff(dim=1) == 1  # (B, S)
            if bool((begins.sum(1) > 1).any()):
                raise ValueError(
                    "padding stands between tokens: it may only be at the ends of a row"
                )
        return start_call(ids, read, documents, padding)

    def _logits(self, call: Call, cache: Cache | None) -> Tensor:
        return self._run(call.ids, call, cache)


def build(
    recipe: Recipe,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """The recipe's model, its weights drawn by (seed, parameter name).

    ``seed`` none is the recipe's own; on the device ``meta`` nothing is allocated, and shapes and
    names are exact.
    """
    import_plugins(recipe.plugins)
    with torch.device("meta"):
        model = Model(recipe)
    if device is not None and torch.device(device).type == "meta":
        return model if dtype is None else model.to(dtype)
    scheme, own_seed = recipe.train["init"], recipe.train["seed"]
    assert isinstance(scheme, Filler) and isinstance(own_seed, int), recipe.train
    seed = own_seed if seed is None else seed
    initial.draw(model, make(scheme), seed, count_adds(recipe.graph), device, dtype)
    return model
