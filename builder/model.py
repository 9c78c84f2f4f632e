"""The model: what a recipe builds, and what people call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.cache import Cache
from blocks.call import Call, start_call
from builder import generate as generation
from builder import initial
from builder.assemble import Assembler, ChainRun, count_adds, opened
from builder.construct import import_plugins, make
from builder.graph import Filler, Layer, leaves
from builder.head_loss import head_alone, summed_over_head
from builder.loss import (
    IGNORED,
    summed,
    summed_in_chunks,
    where_chunks_begin,
    where_reading_ends,
)
from builder.recipe import Recipe


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
        self._end = where_chunks_begin(recipe.graph)
        self._reading = where_reading_ends(recipe.graph)
        limits = [int(m.limit) for m in self.modules() if hasattr(m, "limit")]  # type: ignore[arg-type]
        self.limit: int | None = min(limits, default=None)

    def forward(
        self,
        ids: Tensor,
        *,
        cache: Cache | None = None,
        padding: Tensor | None = None,
        documents: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        """The logits of every given token, or of the ``last`` of each row alone.

        Shapes: ids ``(B, T)`` int64; padding ``(B, S)`` bool, True where there is no token, at
        either end of a row, over the cached positions too; documents ``(B, T)`` int, one number a
        document.  With a cache (inference: no gradients) the tokens follow those read before, in
        any chunks.  Raises ValueError if shapes disagree.
        """
        if cache is None:
            return self._logits(self._call(ids, 0, documents, padding), None, last)
        before = len(cache)
        try:
            with torch.no_grad():
                unread, read = cache.extend(ids, documents)
                call = self._call(unread, read, cache.documents, padding)
                return self._logits(call, cache, last)[:, -ids.shape[1] :]
        except BaseException:  # Ctrl-C too: a call that fails leaves the cache as it was
            cache.crop(before)
            raise

    def loss(
        self,
        ids: Tensor,
        labels: Tensor,
        padding: Tensor | None = None,
        documents: Tensor | None = None,
        chunk: int | None = None,
        z_loss: float = 0.0,
    ) -> Tensor:
        """Mean cross entropy in nats over the labels that are not -100, and the blocks' own losses.

        ``labels[b, t]`` is the token expected after ``ids[b, t]``.  With no label at all the mean
        is 0.  With a ``chunk`` no more than so many positions' logits are held at once, if what
        gives them, and all after it, reads every position by itself; the loss and its gradients are
        the same, and can be had once; dropout on logits is drawn chunk by chunk.  ``z_loss`` weighs
        the square of the logarithm of the softmax's denominator, meant over the same labels.
        """
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk={chunk} is below 1")
        if chunk is None or self._end is None:
            return self.logits_and_loss(ids, labels, padding, documents, z_loss)[1]
        call = self._call(ids, 0, documents, padding)
        body, end = self._run.split(self._end)
        x = body(call.ids, call, None)
        if head := head_alone(end, x):
            return _mean(summed_over_head(head, x, labels, chunk, z_loss), labels, call)
        total = summed_in_chunks(
            lambda piece, expected: summed(end(piece, call, None), expected, z_loss),
            self._last_parameters(),
            x,
            labels,
            chunk,
        )
        return _mean(total, labels, call)

    def _last_parameters(self) -> list[nn.Parameter]:
        """Those of what gives the logits, and of all after it."""
        items = self.recipe.graph.items[self._end :]
        names = dict.fromkeys(leaf.weights for item in items for leaf in leaves(item))
        found = (p for name in names for p in self.get_submodule(name).parameters())
        return list(dict.fromkeys(found))

    def logits_and_loss(
        self,
        ids: Tensor,
        labels: Tensor,
        padding: Tensor | None = None,
        documents: Tensor | None = None,
        z_loss: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """What ``forward`` and ``loss`` give, in one pass."""
        call = self._call(ids, 0, documents, padding)
        logits = self._logits(call, None)
        return logits, _mean(summed(logits, labels, z_loss), labels, call)

    def read_out(self, x: Tensor) -> Tensor:
        """The logits that all behind the last layer makes of a stream, ``(B, T, dim)`` to ``(B, T,
        vocab)``: of an earlier layer's the logit lens (nostalgebraist 2020).  KeyError if something
        there reads what a label names.
        """
        items = self.recipe.graph.items
        last = max((n for n, item in enumerate(items) if isinstance(item, Layer)), default=-1)
        ids = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
        logits: Tensor = self._run.split(last + 1)[1](x, self._call(ids, 0, None, None), None)
        return logits

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

    def _logits(self, call: Call, cache: Cache | None, last: bool = False) -> Tensor:
        if not last:
            return self._run(call.ids, call, cache)
        first, end = self._run.split(self._reading[0] + 1)
        *before, layer = first.parts
        inner, rest = opened(layer, self._reading[1])
        x = ChainRun([*before, inner])(call.ids, call, cache)[:, -1:]
        return ChainRun([rest, end])(x, call, cache)


def length_read(module: nn.Module) -> int | None:
    """The length up to which a text's own makes no difference to a module; None if it never does.

    A longer text is read by other angles at once than in parts, so that cached and full differ.
    """
    limits = [getattr(part, "reads_length", None) for part in module.modules()]
    return min((limit for limit in limits if limit is not None), default=None)


def _mean(total: Tensor, labels: Tensor, call: Call) -> Tensor:
    return sum(call.losses, total / (labels != IGNORED).sum().clamp(min=1))


def build(
    recipe: Recipe,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """The recipe's model, its weights drawn by (seed, parameter name).

    ``seed`` none is the recipe's own, and ``device`` none torch's default; on the device ``meta``
    nothing is allocated, and shapes and names are exact.
    """
    import_plugins(recipe.plugins)
    with torch.device("meta"):
        model = Model(recipe)
    device = torch.get_default_device() if device is None else torch.device(device)
    if device.type == "meta":
        return model if dtype is None else model.to(dtype)
    first = first_values(recipe, seed)
    initial.materialise(model, lambda name, one: first(name, one).to(device=device, dtype=dtype))
    return model


def redraw(model: Model, among: Callable[[nn.Parameter], bool]) -> None:
    """Give some parameters of a model that is there the values that they are built with."""
    first = first_values(model.recipe)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if among(parameter) and not parameter.is_meta:
                parameter.copy_(first(name, parameter))


def first_values(recipe: Recipe, seed: int | None = None) -> Callable[[str, nn.Parameter], Tensor]:
    """How the recipe's weights begin, by name."""
    scheme, own_seed = recipe.train["init"], recipe.train["seed"]
    assert isinstance(scheme, Filler) and isinstance(own_seed, int), recipe.train
    seed = own_seed if seed is None else seed
    return initial.first_values(make(scheme), seed, count_adds(recipe.graph))
