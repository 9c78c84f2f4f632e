"""How a class becomes a word of the recipe language: its signature is its schema.

Positional-only parameters are the block's *value* (``{scale: 0.22}``), ordinary ones its *sizes*
(looked up among the recipe's dims), keyword-only ones its *options*.  The annotation of a slot
names the kind of block that fills it: ``act: Act = maker("silu")``; ``Node`` takes a whole node.  A
class may also say, as plain literals that are read without importing torch:

- ``checks = {"heads % kv_heads == 0": "heads={heads} is not a multiple of kv_heads={kv_heads}"}``
- ``output = "down.weight"``: the matrix that writes into the residual stream, for depth-scaled
  initial weights.
- ``lends = {"values": ("kv_heads",)}``: what a label on it names beside its output, with the
  arguments that a reader must have alike.
- ``reads = {"value_from": "values"}``: which of these an option of type ``Reference`` reads, if not
  the output.
- ``gives = {"position": {"head_dim": "rope_dim"}}``: by kind, which of its sizes a filler is given
  as one of another name.
- ``inner = "dim / streams"``: the width that a joiner's body meets, if not ``dim``; ``outer``: that
  which a leaf gives.

An instance may say ``by_data``, True if its forward asks what its data are: where only costs are
asked it is set False, and any choice of as many will do; ``active``, the share of its stacked
parameters that one token uses; and, if it mixes tokens, ``visible(i, j)``, whether the token at
place ``i`` reads that at ``j``: the laws then hold it to that.

``forward`` takes the stream, and by name whatever it asks for: ``call``, ``cache`` (its own state),
``lend`` (a dict to put what it lends into), each of its references (a tensor, what was lent, or a
list of tensors), and a joiner its ``body``.

"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from blocks.kinds import KINDS

C = TypeVar("C", bound=type)

REGISTRY: dict[tuple[str, str], type] = {}  # (namespace, word) -> class


class Maker(Protocol):
    """What fills a slot: called with the sizes that its parent gives, it makes the block."""

    def __call__(self, *widths: int, **sizes: int) -> Any: ...


Reference: TypeAlias = object  # what a label names; ``forward`` is given it by the option's name
References: TypeAlias = Sequence[object]  # all that bore the label before, first to last

Act: TypeAlias = Maker
Data: TypeAlias = Maker
Gate: TypeAlias = Maker
Init: TypeAlias = Maker
Mask: TypeAlias = Maker
Node: TypeAlias = Maker
Norm: TypeAlias = Maker
Optimizer: TypeAlias = Maker
Position: TypeAlias = Maker
Router: TypeAlias = Maker
Scaling: TypeAlias = Maker
Schedule: TypeAlias = Maker
Temperature: TypeAlias = Maker


def register(word: str, *, kind: str) -> Callable[[C], C]:
    """Give a class its word in recipes.  Registering is joining: every law then holds for it."""

    def add(cls: C) -> C:
        key = (KINDS[kind].namespace, word)
        if key in REGISTRY and REGISTRY[key].__qualname__ != cls.__qualname__:
            raise ValueError(f"{word!r} is already registered, by {REGISTRY[key].__qualname__}")
        REGISTRY[key] = cls
        cls.word, cls.kind = word, kind  # type: ignore[attr-defined]
        return cls

    return add


def load() -> dict[tuple[str, str], type]:
    """Import every block, so that the registry is full, and return it."""
    package = importlib.import_module("blocks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"blocks.{module.name}")
    return REGISTRY


@dataclass(frozen=True)
class Default:
    """A slot's default: a word with its options, made when its parent is.

    Words of two kinds may be spelt alike: a router is given sizes, an activation none.
    """

    word: str
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *widths: int, **sizes: int) -> Any:
        alike = [cls for (_, word), cls in load().items() if word == self.word]
        given = widths or sizes
        (cls,) = alike if len(alike) == 1 else (c for c in alike if bool(given) == asks_sizes(c))
        return construct(cls, *widths, **sizes, **self.options)


def maker(word: str, **options: Any) -> Any:
    """A slot's default in a signature: ``act: Act = maker("silu")``."""
    return Default(word, options)


@dataclass(frozen=True)
class Size:
    """A size's default: an expression of the block's other sizes."""

    text: str


def size(text: str) -> Any:
    """A size's default in a signature: ``head_dim: int = size("dim / heads")``."""
    return Size(text)


def asks_sizes(cls: type) -> bool:
    """Whether a class cannot be made of its options alone."""
    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in inspect.signature(cls).parameters.values()
    )


def construct(cls: type, *widths: Any, **given: Any) -> Any:
    """Make a block from the sizes that its signature takes among those its parent gives."""
    taken = inspect.signature(cls).parameters
    return cls(*widths, **{name: value for name, value in given.items() if name in taken})
