"""Weights that lie in one file: state dicts of torch, and llama2.c's, read through a family.

Such a file is a folder whose tensors all lie in it, so that all that holds of folders holds of it:
each tensor is used once, of its shape, a number.  It is read where it lies, a tensor at a time.
"""

from __future__ import annotations

import json
import math
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from builder.errors import DamagedError, InputError
from hf_bridge.errors import WeightsError
from hf_bridge.folder import FLOATS, Folder, Held, Reader, read_json

if TYPE_CHECKING:
    from torch import Tensor

Tensors: TypeAlias = "dict[str, Tensor]"
Fields: TypeAlias = "dict[str, Any]"
INSIDE = ("model", "state_dict", "model_state_dict", "module")  # where a training script puts it
WRAPPERS = ("_orig_mod.", "module.", "model._orig_mod.")  # what compile and data parallel prepend
ARGUMENTS = ("model_args", "config", "hparams")  # where it says what it built
NAMES = 64  # that one number of the file may go by: layers that share, tied heads
MAX_FIELDS = 1_000_000  # characters
HEADER = struct.Struct("<7i")


@dataclass(frozen=True)
class Checkpoint(Folder):
    """A file of weights, as a folder that holds nothing else."""

    held: Mapping[str, Tensor] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> Fields:
        return dict(self.fields)

    @cached_property
    def tensors(self) -> dict[str, Held]:
        return {
            name: Held(self.path, tuple(tensor.shape), _dtype(tensor))
            for name, tensor in self.held.items()
        }

    def reader(self, path: Path) -> AbstractContextManager[Reader]:
        return nullcontext(self)

    def get_tensor(self, name: str) -> Tensor:
        return self.held[name].detach()


def _dtype(tensor: Tensor) -> str:
    """The word of a safetensors header, or torch's own."""
    name = str(tensor.dtype).removeprefix("torch.")
    return next((word for word, theirs in FLOATS.items() if theirs == name), name)


def open_checkpoint(path: Path, model_type: str, config: Path | None = None) -> Checkpoint:
    """``config`` is a JSON file with the family's fields; without it they are those in the file."""
    tensors, found = read_checkpoint(path)
    fields = read_json(config) if config is not None else _plain(path, found)
    if not fields:
        message = f"{path} does not say how its model was built"
        raise InputError("checkpoint-config", message, "give its fields with --config FILE.json")
    return Checkpoint(path, path.stem, tensors, {"model_type": model_type, **fields})


def _plain(path: Path, fields: Fields) -> Fields:
    """What JSON can say; a small pickle may stand for very much of it."""
    written, size = [], 0
    try:
        for part in json.JSONEncoder(allow_nan=False).iterencode(fields):
            written.append(part)
            if (size := size + len(part)) > MAX_FIELDS:
                raise ValueError(f"more than {MAX_FIELDS:,} characters")
    except (TypeError, ValueError, RecursionError) as error:
        message = f"{path} tells what no JSON holds of how its model was built: {error}"
        help = "give its fields with --config FILE.json"
        raise InputError("checkpoint-config", message, help) from None
    plain: Fields = json.loads("".join(written))
    return plain


def read_checkpoint(path: Path) -> tuple[Tensors, Fields]:
    """The tensors of a file by name, and what it says of how their model was built."""
    if not path.is_file():
        raise InputError("cannot-read", f"there is no file {str(path)!r}")
    with path.open("rb") as file:
        start = file.read(HEADER.size)
    if len(start) == HEADER.size and _llama2c_size(HEADER.unpack(start)) == path.stat().st_size:
        return read_llama2c(path)
    return read_state_dict(path)


def read_state_dict(path: Path) -> tuple[Tensors, Fields]:
    """A file of ``torch.save``."""
    import torch

    state = found = _unpickled(path)
    for word in INSIDE:
        if isinstance(state, Mapping) and isinstance(state.get(word), Mapping):
            state = state[word]
            break
    tensors = (
        {k: v for k, v in state.items() if isinstance(v, torch.Tensor)} if _named(state) else {}
    )
    if not tensors or len(tensors) != len(state):
        message = f"{path} holds no state dict: names, each with a tensor"
        raise WeightsError("weights-missing", message)
    _check_held(path, tensors)
    arguments: Mapping[str, Any] = next(
        (found[a] for a in ARGUMENTS if isinstance(found.get(a), Mapping)), {}
    )
    return _unwrapped(tensors), dict(arguments)


def _unpickled(path: Path) -> Any:
    """Only tensors and plain values are unpickled: no code runs."""
    import torch

    try:
        if is_zip := zipfile.is_zipfile(path):
            _check_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError:
        message = f"{path} holds more than tensors and plain values, and could run code"
        help = "save its state_dict alone: torch.save(model.state_dict(), ...)"
        raise WeightsError("weights-refused", message, help) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = next(iter(str(error).splitlines()), "empty")
        message = f"{path} is no checkpoint of torch: {reason}"
        raise DamagedError("damaged-weights", message) from None


def _check_stored(path: Path) -> None:
    """torch.save compresses nothing; what is compressed, its mmap would take for numbers."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename} in it is compressed")


def _check_held(path: Path, tensors: Tensors) -> None:
    """Every number of a tensor lies in the file; a stride of 0 could stand for any amount."""
    import torch

    size, claimed = path.stat().st_size, 0
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or not tensor.is_cpu:
            told = str(tensor.layout if tensor.is_cpu else tensor.device).removeprefix("torch.")
            what = "quantized" if tensor.is_quantized else told
            message = f"{path}: {name} is no tensor of plain numbers: {what}"
            raise WeightsError("weights-dtype", message)
        claimed += tensor.nbytes
        if tensor.nbytes > tensor.untyped_storage().nbytes() or claimed > NAMES * size:
            message = f"{path}: {name} claims {tensor.numel():,} numbers, which are not in the file"
            raise WeightsError("damaged-weights", message)


def _named(state: Any) -> bool:
    return isinstance(state, Mapping) and all(isinstance(name, str) for name in state)


def _unwrapped(tensors: Tensors) -> Tensors:
    """Names without what a wrapper around the whole model has put in front."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            return _unwrapped({name.removeprefix(prefix): t for name, t in tensors.items()})
    return tensors


# llama2.c, version 0


def _llama2c(header: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The arrays in their order, each for all layers; an empty name is of no use any more."""
    dim, hidden, layers, heads, kv_heads, vocab, context = header
    head = dim // max(heads, 1)
    yield "tok_embeddings", (abs(vocab), dim)
    yield "attention_norm", (layers, dim)
    yield "attention.wq", (layers, heads * head, dim)
    yield "attention.wk", (layers, kv_heads * head, dim)
    yield "attention.wv", (layers, kv_heads * head, dim)
    yield "attention.wo", (layers, dim, heads * head)
    yield "ffn_norm", (layers, dim)
    yield "feed_forward.w1", (layers, hidden, dim)
    yield "feed_forward.w2", (layers, dim, hidden)
    yield "feed_forward.w3", (layers, hidden, dim)
    yield "norm", (dim,)
    yield "", (2, context, head // 2)
    if vocab < 0:
        yield "output", (abs(vocab), dim)


def _llama2c_size(header: tuple[int, ...]) -> int:
    """How long a file with this header is; -1 if no model has it."""
    if min(*header[:5], header[6]) < 1:
        return -1
    return HEADER.size + 4 * sum(math.prod(shape) for _, shape in _llama2c(header))


def read_llama2c(path: Path) -> tuple[Tensors, Fields]:
    """A ``.bin`` of llama2.c: seven sizes, and float32 arrays under no names.

    Source: github.com/karpathy/llama2.c, the layout of version 0.
    """
    import torch

    with path.open("rb") as file:
        header = HEADER.unpack(file.read(HEADER.size))
    numbers = torch.from_file(str(path), False, path.stat().st_size // 4, dtype=torch.float32)
    numbers = numbers[HEADER.size // 4 :]
    tensors: Tensors = {}
    for name, shape in _llama2c(header):
        part, numbers = numbers[: math.prod(shape)].view(shape), numbers[math.prod(shape) :]
        if name in ("tok_embeddings", "norm", "output"):
            tensors[f"{name}.weight"] = part
        elif name:
            tensors |= {f"layers.{i}.{name}.weight": one for i, one in enumerate(part)}
    dim, hidden, layers, heads, kv_heads, vocab, context = header
    fields = {"dim": dim, "hidden_dim": hidden, "n_layers": layers, "n_heads": heads}
    fields |= {"n_kv_heads": kv_heads, "vocab_size": abs(vocab), "max_seq_len": context}
    return tensors, {**fields, "tied": vocab > 0}
