"""Recipes to models: ``load_recipe`` reads a page, ``build`` makes the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.model import build as build
    from builder.recipe import load_recipe as load_recipe

_HOMES = {"load_recipe": "builder.recipe", "build": "builder.model"}


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is: reading a recipe needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'builder' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
