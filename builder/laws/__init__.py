"""The laws that every recipe keeps, and the strategies that draw recipes.

The test suite runs them on drawn recipes; a plug-in's author runs the same ones:

    from builder.laws import LAWS, recipes

    @given(recipe=recipes(plugins=[Path("my_blocks.py")]), seed=st.integers(0, 999))
    def test_my_blocks_keep_the_laws(recipe, seed):
        for law in LAWS.values():
            law(recipe, seed)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.laws.laws import LAWS as LAWS
    from builder.laws.noise import perturb as perturb
    from builder.laws.strategies import pages as pages
    from builder.laws.strategies import recipes as recipes

_HOMES = {"LAWS": "laws", "perturb": "noise", "pages": "strategies", "recipes": "strategies"}


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is: a law needs no hypothesis, a strategy no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'builder.laws' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"builder.laws.{_HOMES[name]}"), name)
