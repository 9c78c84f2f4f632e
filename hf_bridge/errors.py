"""What can go wrong between a recipe and a foreign folder."""

from __future__ import annotations

from builder.errors import DamagedError, InputError


class FamilyError(InputError):
    """A family file that cannot be right, whatever the folder."""


class ConfigError(InputError):
    """A config.json that says something our blocks cannot follow."""


class WeightsError(DamagedError):
    """Tensors that are missing, left over, of another shape, or contradicted."""


class NotExportable(InputError):
    """The model fits no native class, or not the one asked for: the first difference and the
    nearest family.
    """
