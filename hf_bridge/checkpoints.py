"""Weights that lie in one file: state dicts of torch, and llama2.c's, read through a family.

What such a file holds becomes a folder in the library's layout for as long as it is read, so that
all that holds of folders holds of it: each tensor is used once, of its shape, a number.
"""

from __future__ import annotations

import json
import math
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from builder.errors import DamagedError, InputError
from hf_bridge.errors import WeightsError
from hf_bridge.folder import CONFIG, WEIGHTS, Folder, open_folder, read_json

if TYPE_CHECKING:
    from torch import Tensor

Tensors: TypeAlias = "dict[str, Tensor]"
Fields: TypeAlias = "dict[str, Any]"
INSIDE = ("model", "state_dict", "model_state_dict", "module")  # where a training script puts it
WRAPPERS = ("_orig_mod.", "module.", "model._orig_mod.")  # what compile and data parallel prepend
ARGUMENTS = ("model_args", "config", "hparams")  # where it says what it built
HEADER = struct.Struct("<7i")


@contextmanager
def as_folder(path: Path, model_type: str, config: Path | None = None) -> Iterator[Folder]:
    """A checkpoint as a folder that is there within the ``with``.

    ``config`` is a JSON file with the family's fields; without it they are those in the checkpoint.
    """
    tensors, found = read_checkpoint(path)
    fields = read_json(config) if config is not None else found
    if not fields:
        message = f"{path} does not say how its model was built"
        raise InputError("checkpoint-config", message, "give its fields with --config FILE.json")
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
        folder = Path(scratch) / path.stem
        folder.mkdir()
        told = fields if "model_type" in fields else {"model_type": model_type, **fields}
        (folder / CONFIG).write_text(json.dumps(told), "utf-8")
        _save(tensors, folder / WEIGHTS)
        yield open_folder(folder)


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
    """A file of ``torch.save``.  Only tensors and plain values are unpickled: no code runs."""
    import torch

    try:
        found = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError:
        message = f"{path} holds more than tensors and plain values, and could run code"
        help = "save its state_dict alone: torch.save(model.state_dict(), ...)"
        raise WeightsError("weights-refused", message, help) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        message = (
            f"{path} is no checkpoint of torch: {next(iter(str(error).splitlines()), 'empty')}"
        )
        raise DamagedError("damaged-weights", message) from None
    state = found
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
    arguments: Mapping[str, Any] = next(
        (found[a] for a in ARGUMENTS if isinstance(found.get(a), Mapping)), {}
    )
    return _unwrapped(tensors), dict(arguments)


def _named(state: Any) -> bool:
    return isinstance(state, Mapping) and all(isinstance(name, str) for name in state)


def _unwrapped(tensors: Tensors) -> Tensors:
    """Names without what a wrapper around the whole model has put in front."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            return _unwrapped({name.removeprefix(prefix): t for name, t in tensors.items()})
    return tensors


def _save(tensors: Tensors, path: Path) -> None:
    """Each tensor by itself: of tied ones the file has two."""
    from safetensors.torch import save_file

    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if place in seen else tensor.contiguous()
        seen.add(place)
    save_file(own, path)


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
            tensors[f"{name}.weight"] = part.clone()
        elif name:
            tensors |= {f"layers.{i}.{name}.weight": one.clone() for i, one in enumerate(part)}
    dim, hidden, layers, heads, kv_heads, vocab, context = header
    fields = {"dim": dim, "hidden_dim": hidden, "n_layers": layers, "n_heads": heads}
    fields |= {"n_kv_heads": kv_heads, "vocab_size": abs(vocab), "max_seq_len": context}
    return tensors, {**fields, "tied": vocab > 0}
