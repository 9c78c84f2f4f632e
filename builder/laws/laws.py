"""All laws by name.  Each takes a case, raises AssertionError, or gives the largest error."""

from __future__ import annotations

from builder.laws import batches, caches, causality, parameters, spellings
from builder.laws.case import Case, Law

LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        causality.has_right_shapes,
        causality.is_causal_by_value,
        causality.is_causal_by_gradient,
        causality.rows_are_independent,
        causality.dropout_is_off_in_eval,
        caches.cached_equals_full,
        caches.caches_can_be_edited,
        caches.cache_size_is_known,
        batches.padded_equals_unpadded,
        batches.packed_equals_separate,
        batches.documents_do_not_see_each_other,
        parameters.every_parameter_learns,
        parameters.names_are_unique,
        parameters.each_is_moved_by_one_group,
        parameters.tied_stays_tied,
        parameters.saved_equals_loaded,
        parameters.initial_weights_are_keyed,
        spellings.spelling_changes_nothing,
        spellings.resolved_page_is_its_own,
    )
}


def hold(case: Case) -> dict[str, float]:
    """Hold a case to every law, and give the largest error of each; what is raised bears a note of
    the law.
    """
    errors = {}
    before = _state(case)
    for name, law in LAWS.items():
        try:
            errors[name] = law(case)
            assert _state(case) == before, "the law itself changed the model"
        except Exception as error:
            error.add_note(f"of the law {name}, at seed {case.seed}")
            raise
    return errors


def _state(case: Case) -> tuple[object, ...]:
    """What tells whether a model was trained, moved, or left with gradients."""
    model = case.model
    return model.training, [(p._version, p.grad) for p in model.parameters()]
