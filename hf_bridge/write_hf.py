"""A folder in the library's layout, written whole or not at all, and proved by loading it."""

# The library is typed in parts only.
# mypy: allow-untyped-calls

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, InputError, ResourceError
from hf_bridge.folder import CONFIG, INDEX, WEIGHTS
from hf_bridge.layouts import Constant, Layout
from hf_bridge.tokenizer import token_ids

if TYPE_CHECKING:
    from torch import Tensor

    from builder.model import Model
    from builder.tokenizers import Tokenizer

SHARD_BYTES = 5_000_000_000
SUMS = "SHA256SUMS"
ULPS = 100  # of the dtype, at the largest logit: two orders of summation lie no further apart


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside the one asked for, which takes its name if all goes well."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"{str(out)!r} is not an empty folder"
        raise InputError("already-there", message, "nothing is overwritten")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        message = f"cannot write {str(out)!r}: {error.strerror}"
        raise ResourceError("cannot-write", message) from error
    try:
        yield folder
        write_sums(folder)
        folder.chmod(0o755)
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_sums(folder: Path) -> None:
    """The SHA-256 of every other file, as ``sha256sum --check`` reads them."""
    lines = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / SUMS).write_text("".join(lines), "utf-8")


def write_native(
    out: Path,
    config: Mapping[str, Any],
    tensors: Iterator[tuple[str, Tensor]],
    tokenizer: Tokenizer | None,
) -> None:
    """A folder of one of the library's own classes."""
    ids = generation_ids(tokenizer)
    told = {role: id for role, id in ids.items() if id is not None}
    dtype = write_weights(out, tensors)
    write_json(out / CONFIG, {**ids, **config, **told, "dtype": dtype})
    write_json(out / "generation_config.json", ids)
    write_tokenizer(out, tokenizer)


def generation_ids(tokenizer: Tokenizer | None) -> dict[str, int | None]:
    """Said even if null: a class's own defaults would stop at some word by accident."""
    return {f"{role}_token_id": id for role, id in token_ids(tokenizer).items()}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def native_tensors(
    rows: Mapping[str, Layout], ours: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of theirs, made when it is asked for."""
    dtype = next(iter(ours.values())).dtype
    for theirs, layout in rows.items():
        parts = {name: part.detach() for name, part in layout.parts(ours).items()}
        tensor = layout.theirs(parts)
        if isinstance(layout, Constant):
            tensor = tensor.to(dtype)
        yield theirs, tensor.contiguous().cpu()


def write_weights(
    out: Path, tensors: Iterator[tuple[str, Tensor]], limit: int = SHARD_BYTES
) -> str:
    """One file, or shards with their index where it would be too large; give the dtype's name."""
    from safetensors.torch import save_file

    places: list[tuple[Path, list[str]]] = []
    total, dtype = 0, ""
    for shard in shards_of(tensors, limit):
        path = out / f"shard-{len(places)}"
        save_file(shard, path, metadata={"format": "pt"})
        places.append((path, list(shard)))
        total += sum(tensor.nbytes for tensor in shard.values())
        dtype = str(next(iter(shard.values())).dtype).removeprefix("torch.")
    if len(places) == 1:
        places[0][0].rename(out / WEIGHTS)
        return dtype
    files: dict[str, str] = {}
    for number, (path, names) in enumerate(places, 1):
        file = WEIGHTS.replace(".", f"-{number:05}-of-{len(places):05}.", 1)
        path.rename(out / file)
        files |= dict.fromkeys(names, file)
    write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": files})
    return dtype


def shards_of(tensors: Iterator[tuple[str, Tensor]], limit: int) -> Iterator[dict[str, Tensor]]:
    """The tensors in order, as many at a time as the limit holds: no more is ever in memory."""
    held: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if held and sum(t.nbytes for t in held.values()) + tensor.nbytes > limit:
            yield held
            held = {}
        held[name] = tensor
    yield held


def write_tokenizer(out: Path, tokenizer: Tokenizer | None) -> None:
    if tokenizer is not None:
        from hf_bridge.tokenizer import as_transformers_tokenizer

        as_transformers_tokenizer(tokenizer).save_pretrained(out)


def write_recipe_class(out: Path, model: Model, tokenizer: Tokenizer | None) -> str:
    """The model as our own class of the library's, for what fits no native one."""
    from hf_bridge.model import as_transformers

    wrapped = as_transformers(model)
    wrapped.generation_config.update(**generation_ids(tokenizer))
    with quiet():
        wrapped.save_pretrained(out)
    write_tokenizer(out, tokenizer)
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
