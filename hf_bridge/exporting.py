"""Our model -> a folder of the library's: unified with a family, proved by importing, then by
loading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, Finding
from builder.expressions import ExpressionError
from builder.graph import Graph, leaves
from builder.index import Index, load_index
from hf_bridge.card import Story, write_card
from hf_bridge.difference import Difference
from hf_bridge.errors import NotExportable
from hf_bridge.family import Family, is_other, selections
from hf_bridge.family_files import family_names, load_family
from hf_bridge.importing import Imported, import_with
from hf_bridge.normalise import nested, normalise
from hf_bridge.scope import Key
from hf_bridge.template import same
from hf_bridge.unify import Unifier
from hf_bridge.weights import table
from hf_bridge.write_hf import native_tensors, prove, staged, write_native, write_recipe_class

if TYPE_CHECKING:
    from builder.model import Model
    from builder.tokenizers import Tokenizer

NEAREST = 4  # families that a refusal names


@dataclass(frozen=True)
class Fit:
    """A family that a graph is a model of: the config that says so, proved by importing it."""

    family: Family
    config: dict[str, Any]
    imported: Imported
    departures: tuple[int, int]  # fields not at their defaults: those that choose a case, and all


@dataclass(frozen=True)
class Written:
    """The class that was written, and if it is our own, why none of the library's fits."""

    architecture: str
    why: NotExportable | None = None


def to_hf(
    model: Model,
    out: str | Path,
    family: str | Path | None = None,
    tokenizer: Tokenizer | None = None,
    story: Story | None = None,
) -> Written:
    """Write the model for ``from_pretrained``, with a model card that tells its ``story``.

    With ``family``, that one or NotExportable with the reason.  Without it, the native class that
    fits with the fewest departures from its defaults (in what chooses a case, then in all), else
    ``RecipeForCausalLM``, which loads after ``import hf_bridge``.  The folder appears when it is
    proved, or not at all.
    """
    why, fit = None, None
    try:
        fit = find_fit(model.recipe.graph, family)
    except NotExportable as error:
        if family is not None:
            raise
        why = error
    with staged(Path(out)) as folder:
        if fit is None:
            written = write_recipe_class(folder, model, tokenizer)
        else:
            ours = dict(model.named_parameters())
            rows = table(fit.family, fit.imported.scope, model.recipe.graph, ours)
            written = fit.family.architecture
            write_native(folder, fit.config, native_tensors(rows, ours), tokenizer)
        write_card(folder, model, written, why.findings[0].message if why else "", story)
        prove(model, folder)
    return Written(written, why)


def find_fit(graph: Graph, family: str | Path | None = None, index: Index | None = None) -> Fit:
    """The family of a graph: the one asked for, or the one that fits best."""
    index = index or load_index()
    fits: list[Fit] = []
    differences: list[tuple[Family, Difference]] = []
    for one in [family] if family is not None else family_names():
        read = load_family(one)
        outcome = fit_family(graph, read, index)
        if isinstance(outcome, Fit):
            fits.append(outcome)
        else:
            differences.append((read, outcome))
    if fits:
        return min(fits, key=lambda fit: fit.departures)
    raise NotExportable([_refusal(graph, differences)])


def _refusal(graph: Graph, differences: Sequence[tuple[Family, Difference]]) -> Finding:
    """What would make the model one of the nearest family, and where the next ones differ."""
    by_nearness = sorted(differences, key=lambda pair: (-pair[1].matched, len(pair[0].like)))
    (nearest, first), *rest = by_nearness[:NEAREST]
    mark = first.mark or next(leaf.mark for leaf in leaves(graph) if leaf.mark)
    return Finding(
        "not-exportable",
        f"{nearest.architecture} but for {first}",
        mark,
        f"{first.remedy}; as it is, it is exported as RecipeForCausalLM if no family is asked for",
        tuple(f"{one.architecture} differs in {d.located}" for one, d in rest),
    )


def fit_family(graph: Graph, family: Family, index: Index) -> Fit | Difference:
    """The config with which a family means exactly this graph, or where it first differs."""
    unifier = Unifier(family, graph, index)
    for bound in unifier.solutions():
        outcome = _proved(bound, graph, family, index)
        if isinstance(outcome, Fit):
            return outcome
        unifier.note(outcome)
    assert unifier.furthest is not None, "a search without solutions has met a difference"
    return unifier.furthest


def _proved(
    bound: Mapping[Key, Any], graph: Graph, family: Family, index: Index
) -> Fit | Difference:
    """Law 2: importing the config gives the graph back."""
    from builder import load_recipe

    config = config_of(bound, family, len(graph.layers))
    matched = sum(1 for _ in _parts(graph))
    try:
        imported = import_with(family, config, "exported", index)
        again = load_recipe(imported.text).graph
    except (BuilderError, ExpressionError) as error:
        return Difference("the whole", "a config that cannot be read back", str(error), matched)
    if (difference := first_difference(again, graph)) is not None:
        place, theirs, ours = difference
        return Difference(place, ours, theirs, matched)
    defaults = normalise(family, _least(config))
    others = {f for f, value in imported.fields.items() if not same(defaults.get(f), value)}
    keys = {key.hole.path for s in selections(family.recipe) for key in s.keys if key.hole}
    return Fit(family, config, imported, (len(others & keys), len(others)))


def _least(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": config["model_type"], "architectures": config["architectures"]}


def config_of(bound: Mapping[Key, Any], family: Family, layers: int) -> dict[str, Any]:
    """The config.json that the bindings are."""
    values: dict[str, Any] = {}
    for field in (*family.config, *family.require, *family.pin):
        pin = family.pin.get(field)
        if is_other(pin):
            other = (str(pin).removeprefix("$"), None)
            values |= {field: bound[other]} if other in bound else {}
        elif (field, None) in bound:
            values[field] = bound[field, None]
        elif all((field, layer) in bound for layer in range(layers)) and layers:
            entries = [bound[field, layer] for layer in range(layers)]
            values[field] = _one_for_all(entries) if _is_scalar(family, field) else entries
    told = {"model_type": family.model_type, "architectures": [family.architecture]}
    return told | nested(values)


def _is_scalar(family: Family, field: str) -> bool:
    """Whether a field of the layers is one number unless they differ."""
    default = family.config.get(field)
    return default is not None and isinstance(default.value, int | float)


def _one_for_all(entries: list[Any]) -> Any:
    return entries[0] if all(same(entry, entries[0]) for entry in entries) else entries


def first_difference(a: Any, b: Any, place: str = "the model") -> tuple[str, str, str] | None:
    """Where two graphs first differ: the place, and what each has there."""
    if a == b:
        return None
    if type(a) is type(b) and is_dataclass(a):
        place = getattr(a, "name", None) or (f"layer {a.index}" if hasattr(a, "index") else place)
        parts = [(f.name, getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.compare]
    elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        parts = [("", one, other) for one, other in zip(a, b, strict=True)]
    else:
        return place, _short(a), _short(b)
    for name, one, other in parts:
        if found := first_difference(one, other, f"{place} {name}".strip()):
            return found
    return None


def _short(value: Any) -> str:
    return str(getattr(value, "word", value))[:80]


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if is_dataclass(value):
        for field in fields(value):
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _parts(item)
