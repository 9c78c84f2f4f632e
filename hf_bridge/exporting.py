"""Our model -> a folder of the library's: unified with a family, proved by importing, then by
loading.
"""

# The library is typed in parts only.
# mypy: allow-untyped-calls
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, InputError
from builder.expressions import ExpressionError
from builder.graph import Graph
from builder.index import Index, load_index
from hf_bridge.errors import NotExportable
from hf_bridge.family import Family, family_names, load_family
from hf_bridge.importing import Imported, import_with
from hf_bridge.normalise import nested, normalise
from hf_bridge.read_hf import CONFIG, INDEX, WEIGHTS
from hf_bridge.scope import Key
from hf_bridge.template import same
from hf_bridge.tokenizer import token_ids
from hf_bridge.unify import Difference, Unifier
from hf_bridge.weights import table

if TYPE_CHECKING:
    from torch import Tensor

    from builder.model import Model
    from builder.tokenizers import Tokenizer

SHARD_BYTES = 5_000_000_000
# How far, in units of the dtype at the largest logit, two orders of summation may lie apart.
ULPS = 100


@dataclass(frozen=True)
class Fit:
    """A family that a graph is a model of: the config that says so, proved by importing it."""

    family: Family
    config: dict[str, Any]
    imported: Imported
    departures: int  # config fields that are not at their defaults


def to_hf(
    model: Model,
    out: str | Path,
    family: str | Path | None = None,
    tokenizer: Tokenizer | None = None,
) -> str:
    """Write the model for ``from_pretrained``, and give the class that was written.

    With ``family``, that one or NotExportable with the reason.  Without it, the native class that
    fits with the
    fewest departures from its defaults, else ``RecipeForCausalLM``, which loads after ``import
    hf_bridge``.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            "already-there", f"{str(out)!r} is not an empty folder", "nothing is overwritten"
        )
    try:
        fit = find_fit(model.recipe.graph, family)
    except NotExportable:
        if family is not None:
            raise
        return write_recipe_class(model, out, tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    _write_config(out, fit, model, tokenizer)
    write_weights(out, native_tensors(model, fit))
    write_tokenizer(out, tokenizer)
    prove(model, out)
    return fit.family.architecture


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
    differences.sort(key=lambda pair: -pair[1].matched)
    (nearest, difference), *rest = differences
    others = "".join(f"{one.architecture} differs at {d.place}. " for one, d in rest[:1])
    raise NotExportable(
        "not-exportable",
        f"{nearest.architecture} but for {difference}",
        f"{others}Without a family it is exported as RecipeForCausalLM",
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
    departures = sum(not same(defaults.get(f), value) for f, value in imported.fields.items())
    return Fit(family, config, imported, departures)


def _least(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": config["model_type"], "architectures": config["architectures"]}


def config_of(bound: Mapping[Key, Any], family: Family, layers: int) -> dict[str, Any]:
    """The config.json that the bindings are."""
    values: dict[str, Any] = {}
    for field in (*family.config, *family.require, *family.pin):
        if family.pin.get(field) == "omit":
            continue
        if (field, None) in bound:
            values[field] = bound[field, None]
        elif all((field, layer) in bound for layer in range(layers)) and layers:
            values[field] = [bound[field, layer] for layer in range(layers)]
    told = {"model_type": family.model_type, "architectures": [family.architecture]}
    return told | nested(values)


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


def _write_config(out: Path, fit: Fit, model: Model, tokenizer: Tokenizer | None) -> None:
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    ids = generation_ids(tokenizer)
    write_json(out / CONFIG, fit.config | ids | {"dtype": dtype})
    write_json(out / "generation_config.json", ids)


def generation_ids(tokenizer: Tokenizer | None) -> dict[str, int | None]:
    """Said even if null: a class's own defaults would stop at some word by accident."""
    return {f"{role}_token_id": id for role, id in token_ids(tokenizer).items()}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def native_tensors(model: Model, fit: Fit) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of theirs, made when it is asked for."""
    ours = dict(model.named_parameters())
    for theirs, layout in table(fit.family, fit.imported.scope, model.recipe.graph, ours).items():
        yield (
            theirs,
            layout.theirs({name: ours[name].detach() for name in layout.names()})
            .contiguous()
            .cpu(),
        )


def write_weights(
    out: Path, tensors: Iterator[tuple[str, Tensor]], limit: int = SHARD_BYTES
) -> None:
    """One file, or shards with their index where it would be too large."""
    from safetensors.torch import save_file

    shards: list[tuple[Path, list[str]]] = []
    held: dict[str, Tensor] = {}
    total = size = 0

    def flush() -> None:
        nonlocal held, size
        path = out / f"shard-{len(shards)}"
        save_file(held, path, metadata={"format": "pt"})
        shards.append((path, list(held)))
        held, size = {}, 0

    for name, tensor in tensors:
        if held and size + tensor.nbytes > limit:
            flush()
        held[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        shards[0][0].rename(out / WEIGHTS)
        return
    places: dict[str, str] = {}
    for number, (path, names) in enumerate(shards, 1):
        file = WEIGHTS.replace(".", f"-{number:05}-of-{len(shards):05}.", 1)
        path.rename(out / file)
        places |= dict.fromkeys(names, file)
    write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def write_tokenizer(out: Path, tokenizer: Tokenizer | None) -> None:
    if tokenizer is not None:
        from hf_bridge.tokenizer import as_transformers_tokenizer

        as_transformers_tokenizer(tokenizer).save_pretrained(out)


def write_recipe_class(model: Model, out: Path, tokenizer: Tokenizer | None) -> str:
    """The model as our own class of the library's, for what fits no native one."""
    from hf_bridge.model import as_transformers

    wrapped = as_transformers(model)
    wrapped.generation_config.update(**generation_ids(tokenizer))
    wrapped.save_pretrained(out)
    write_tokenizer(out, tokenizer)
    prove(model, out)
    return type(wrapped).__name__


def prove(model: Model, out: Path) -> None:
    """Load the folder as anybody would, and compare logits."""
    gap, allowed = logits_gap(model, out)
    if not gap <= allowed:
        message = f"{out}: the library's logits differ from ours by {gap:.1e}, not {allowed:.1e}"
        raise BuilderError("logits-differ", message)


def logits_gap(model: Model, folder: Path) -> tuple[float, float]:
    """How far the library's logits of a folder are from ours, and how far rounding may take it."""
    import torch
    from transformers import AutoModelForCausalLM

    parameter, graph = next(model.parameters()), model.recipe.graph
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(graph.vocab, (2, min(graph.context, 32)), generator=generator)
    with quiet():
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=parameter.dtype).eval()
    training = model.training
    with torch.no_grad():
        ours = model.eval()(ids.to(parameter.device)).cpu().double()
        native = theirs(ids).logits.double()
    model.train(training)
    allowed = ULPS * torch.finfo(parameter.dtype).eps * float(ours.abs().max())
    return float((ours - native).abs().max()), allowed


class quiet:
    """The library's progress bars and notices, off for a while."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.level = logging.get_verbosity()
        self.bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *raised: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.level)
        if self.bars:
            logging.enable_progress_bar()
