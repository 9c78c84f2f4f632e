"""What a family file must be so that it can be read in both directions."""

from __future__ import annotations

from dataclasses import replace

from hf_bridge.errors import FamilyError
from hf_bridge.family import Family, formulas, selections
from hf_bridge.template import ANYTHING, holes


def check(family: Family) -> None:
    """Refuse a file that could not be read in both directions."""
    _check_fields(family)
    _check_cases(family)
    _check_cycles(family)
    _check_two_holes(family)


def _check_fields(family: Family) -> None:
    read = {hole.path for hole in holes([family.recipe, family.weights, family.also_read])}
    read |= {hole.path for default in family.config.values() for hole in holes(default)}
    declared = family.config.keys() | family.pin.keys() | family.require.keys()
    for field in sorted(read - declared):
        raise FamilyError(
            "family-unbound-field", f"{family.file}: ${field} has no row in config, pin or require"
        )
    for field in sorted(family.config.keys() - read - family.pin.keys()):
        help = "put it in the recipe, or under pin or ignore with its reason"
        raise FamilyError(
            "family-unbound-field", f"{family.file}: nothing reads the config field {field}", help
        )


def _check_cases(family: Family) -> None:
    """A case ``_`` of one hole must use it: else nothing in a graph tells its value."""
    known = family.pin.keys() | family.require.keys()
    for selection in selections(family.recipe):
        hole = selection.keys[0].hole if len(selection.keys) == 1 else None
        if hole is None or hole.path in known:
            continue
        for case in selection.cases:
            if ANYTHING in case.values[0] and hole.path not in {h.path for h in holes(case.node)}:
                message = f"{family.file}: a case '_' of ${hole.path} does not use it"
                raise FamilyError("family-unbound-field", message)


def _check_cycles(family: Family) -> None:
    needs = {  # what a value is absent by is asked when all are there
        field: {hole.path for hole in holes(replace(default, absent_if=None))}
        for field, default in family.config.items()
    }
    done: set[str] = set()
    while ready := {field for field, read in needs.items() if read & needs.keys() <= done} - done:
        done |= ready
    if stuck := sorted(needs.keys() - done):
        raise FamilyError(
            "family-cycle", f"{family.file}: the defaults of {', '.join(stuck)} need each other"
        )


def _check_two_holes(family: Family) -> None:
    """A formula is solved for one field: the others must be found elsewhere."""
    alone = {formula.hole.path for formula in formulas(family.recipe) if formula.hole}
    alone |= {key.hole.path for s in selections(family.recipe) for key in s.keys if key.hole}
    known = alone | family.pin.keys() | family.require.keys()
    for formula in formulas(family.recipe):
        if len(formula.fields - known) > 1:
            message = f"{family.file}: {formula.text!r} has two fields that nothing else tells"
            raise FamilyError("family-two-holes", message, "pin one of them")
