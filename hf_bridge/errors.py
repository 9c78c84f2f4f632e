"""What can go wrong between a recipe and a foreign folder."""

from __future__ import annotations

from builder.errors import DamagedError, InputError, RecipeError


class FamilyError(InputError):
    """A family file that cannot be right, whatever the folder."""


class ConfigError(InputError):
    """A config.json that says something our blocks cannot follow."""


class WeightsError(DamagedError):
    """Tensors that are missing, left over, of another shape, or contradicted."""


class NotExportable(RecipeError):
    """The model fits no native class, or not the one asked for.  Its finding stands where it first
    differs from the nearest family, and names the next nearest.
    """
