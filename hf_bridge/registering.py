"""``AutoModelForCausalLM`` learns our class when it is imported, not before: help stays instant."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO = "transformers.models.auto.modeling_auto"


def register_later() -> None:
    """Register our class now if the library's registry is loaded, else as soon as it is."""
    if AUTO in sys.modules:
        _register()
    elif not any(isinstance(finder, WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, WhenImported())


def _register() -> None:
    """Our class registers itself; if it is what imports the registry, it is about to."""
    importlib.import_module("hf_bridge.model")


class WhenImported(MetaPathFinder):
    """Finds the registry's module where it is anyway, and registers once it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != AUTO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = ThenRegister(spec.loader)
        return spec


class ThenRegister(Loader):
    """A loader that registers our class after the module has run."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _register()
