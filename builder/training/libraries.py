"""Libraries that only some runs need."""

from __future__ import annotations

import importlib
from typing import Any

from builder.errors import InputError


def library(module: str, what: str, install: str) -> Any:
    """A module that ``what`` takes.  InputError says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        message = f"{what} takes {module.partition('.')[0]}, which is not installed"
        raise InputError("missing-library", message, f"pip install {install}") from None
