"""Registered words and resolved options -> blocks."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from blocks import registry
from blocks.kinds import KINDS
from builder.graph import NODE, Filler, Leaf, Named, Node, Value
from builder.index import HOMES


def make(
    block: Filler | Leaf, *widths: int, node: Callable[[Node], Any] | None = None, **sizes: Any
) -> Any:
    """The block of a filler or a leaf.  ``widths`` and ``sizes`` are what its parent gives; those
    of no use are dropped.

    A slot becomes a maker, called by the block itself; so does an expert, through ``node``.
    """
    cls = registered(block.kind, block.word)
    signature = inspect.signature(cls).parameters
    given = {name: _ready(value, node) for name, value in block.options}
    values = [given.pop(name) for name, p in signature.items() if p.kind is p.POSITIONAL_ONLY]
    return registry.construct(cls, *values, *widths, **sizes, **given)


def _ready(value: Value, node: Callable[[Node], Any] | None) -> Any:
    if isinstance(value, Filler):
        return partial(make, value)
    if isinstance(value, Named):
        return {name: _ready(held, node) for name, held in value}
    if isinstance(value, NODE):
        assert node is not None, f"{value} stands where no node can"
        return lambda *widths, **sizes: node(value)
    return value


def registered(kind: str, word: str) -> type:
    """The class of a word."""
    namespace = KINDS[kind].namespace
    if (namespace, word) not in registry.REGISTRY:
        _load()
    return registry.REGISTRY[namespace, word]


@cache
def _load() -> None:
    registry.load()
    for home in HOMES[1:]:  # blocks are loaded
        name = home.replace("/", ".")
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("__"):
                importlib.import_module(f"{name}.{module.name}")


def import_plugins(paths: Sequence[Path]) -> None:
    """Run plug-in files, so that their blocks are registered; each once."""
    for path in paths:
        name = f"plugin_{path.stem}"
        if name in sys.modules and sys.modules[name].__file__ == str(path):
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None, path
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
