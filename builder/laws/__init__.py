"""The laws that every recipe keeps, and the strategies that draw recipes.

The test suite, ``check`` and the authors of plug-ins ask the same ones; these by one line in a test
of their own::

    test_my_blocks_keep_every_law = battery("my_blocks.py")

"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.laws.authors import battery as battery
    from builder.laws.case import Case as Case
    from builder.laws.laws import LAWS as LAWS
    from builder.laws.laws import hold as hold
    from builder.laws.noise import perturb as perturb
    from builder.laws.strategies import pages as pages
    from builder.laws.strategies import recipes as recipes

_HOMES = {
    "battery": "authors",
    "Case": "case",
    "LAWS": "laws",
    "hold": "laws",
    "perturb": "noise",
    "pages": "strategies",
    "recipes": "strategies",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is: a law needs no hypothesis, a strategy no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'builder.laws' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"builder.laws.{_HOMES[name]}"), name)
