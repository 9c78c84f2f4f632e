"""All laws by name.  Each takes a case, raises AssertionError, or gives the largest error."""

from __future__ import annotations

from builder.laws import (
    batches,
    caches,
    causality,
    costs,
    identities,
    losses,
    options,
    parameters,
    positions,
    precision,
    reach,
    routes,
    spellings,
)
from builder.laws.case import Case, Law

LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        causality.has_right_shapes,
        causality.is_causal_by_value,
        causality.is_causal_by_gradient,
        reach.reach_is_what_the_masks_say,
        causality.rows_are_independent,
        causality.dropout_is_off_in_eval,
        caches.cached_equals_full,
        caches.fixed_steps_equal_full,
        caches.caches_can_be_edited,
        caches.cache_size_is_known,
        batches.padded_equals_unpadded,
        batches.packed_equals_separate,
        batches.documents_do_not_see_each_other,
        positions.positions_may_shift,
        identities.identities_hold,
        options.no_option_is_dead,
        costs.costs_are_known,
        losses.loss_is_the_mean_over_its_labels,
        losses.any_chunk_gives_the_same_loss,
        losses.unequal_parts_make_one_batch,
        losses.recomputed_layers_change_no_gradient,
        precision.dtypes_are_kept,
        precision.half_precision_is_no_worse_on_any_path,
        routes.every_attention_backend_agrees,
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


DEAR = {  # asked of one case in so many, where many cases are held
    "cached_equals_full": 2,
    "fixed_steps_equal_full": 6,
    "caches_can_be_edited": 3,
    "no_option_is_dead": 4,
    "any_chunk_gives_the_same_loss": 2,
    "initial_weights_are_keyed": 2,
    "unequal_parts_make_one_batch": 4,
    "recomputed_layers_change_no_gradient": 4,
    "every_attention_backend_agrees": 4,
    "tied_stays_tied": 4,
    "spelling_changes_nothing": 4,
    "dtypes_are_kept": 6,
    "half_precision_is_no_worse_on_any_path": 6,
    "saved_equals_loaded": 10,
    "costs_are_known": 40,
}


def hold(case: Case, every: int = 1) -> dict[str, float]:
    """Hold a case to the laws, the dear ones in turn, and give the largest error of each.

    Where ``every`` is more than 1, all are asked in turn, and the dear ones as much more seldom.
    What is raised bears a note of the law.
    """
    errors = {}
    for number, (name, law) in enumerate(LAWS.items()):
        if (case.seed + number) % (every * DEAR.get(name, 1)):
            continue
        try:
            before = _state(case)
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
