"""Inside a model while it reads: streams, attention weights, and what each layer would say.

seen = look_inside(model, ids, tokenizer)
seen.attention["layers.0.attention"]   # (heads, T, T)
seen.norms()                           # (layers + 1, T)
seen.lens()                            # (layers + 1, T, vocab)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from blocks.kinds import NODES
from blocks.watch import WATCHERS
from builder.drawing.heat import Heat
from builder.drawing.svg import shown
from builder.graph import leaves
from builder.model import Model
from builder.tokenizers import Tokenizer


@dataclass(frozen=True)
class Inside:
    """What was seen of one text.

    ``streams``: what enters the first layer, and what each layer gives, ``(T, dim)`` each.
    ``attention``: by the leaf's name the weights of its softmax, ``(heads, T, T)``, a row for each
    token that reads; where layers share weights, those of the last.
    """

    model: Model = field(repr=False)
    ids: Tensor = field(repr=False)
    words: tuple[str, ...]
    streams: tuple[Tensor, ...] = field(repr=False)
    attention: Mapping[str, Tensor] = field(repr=False)

    def norms(self) -> Tensor:
        """How long the residual stream is at each depth and token: ``(layers + 1, T)``."""
        return torch.stack([stream.norm(dim=-1) for stream in self.streams])

    @torch.no_grad()
    def lens(self) -> Tensor:
        """The logits of each depth, read out as if nothing came behind: ``(layers + 1, T, vocab)``.

        Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
        """
        return torch.stack([self.model.read_out(stream[None])[0] for stream in self.streams])

    def map(self, name: str) -> Heat:
        """The attention weights of a leaf as a picture, head by head.  KeyError if it has none."""
        return Heat(name, self.words, self.attention[name].tolist())

    def _repr_html_(self) -> str:
        """What each depth would say next, at each token."""
        best = self.lens().argmax(-1).tolist()
        rows = [("reads", *self.words)]
        rows += [(f"depth {n}", *(self.word(id) for id in ids)) for n, ids in enumerate(best)]
        cells = ("".join(f"<td>{shown(cell)}</td>" for cell in row) for row in rows)
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"

    def word(self, id: int) -> str:
        """A token that was read is written as it was; another by its number."""
        return next(
            (w for w, i in zip(self.words, self.ids.tolist(), strict=True) if i == id), f"{id}"
        )


def look_inside(model: Model, ids: Tensor, tokenizer: Tokenizer | None = None) -> Inside:
    """Let a model read a text, and note what passes.  Shapes: ids ``(T,)`` or ``(1, T)`` int64."""
    ids = ids.reshape(1, -1)
    streams: list[Tensor] = []
    attention: dict[str, Tensor] = {}
    was_training = model.training
    model.eval()
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(watched_streams(model, streams))
        stack.enter_context(watched_attention(model, attention))
        model(ids)
    model.train(was_training)
    name = str if tokenizer is None else tokenizer.name
    words = tuple(name(id) for id in ids[0].tolist())
    return Inside(model, ids[0], words, tuple(streams), attention)


@contextmanager
def watched_streams(model: Model, found: list[Tensor]) -> Iterator[None]:
    """Note what enters the first layer, and what each gives."""
    layers = list(getattr(model, "layers", ()))
    hooks = [
        layer.register_forward_hook(lambda m, given, out: found.append(out[0])) for layer in layers
    ]
    if layers:
        first = layers[0].register_forward_pre_hook(lambda m, given: found.append(given[0][0]))
        hooks.append(first)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def watched_attention(model: Model, found: dict[str, Tensor]) -> Iterator[None]:
    """Note the weights of each attention under its name."""
    names = {leaf.weights for leaf in leaves(model.recipe.graph) if NODES[leaf.kind].mixes}
    now: list[str] = []

    def enter(name: str) -> object:
        def hook(module: nn.Module, given: object) -> None:
            now[:] = [name]

        return hook

    def note(weights: Tensor) -> None:
        found[now[-1]] = weights[0]

    hooks = [model.get_submodule(n).register_forward_pre_hook(enter(n)) for n in names]  # type: ignore[arg-type]
    WATCHERS.append(note)
    try:
        yield
    finally:
        WATCHERS.remove(note)
        for hook in hooks:
            hook.remove()
