"""A foreign folder -> config, tokenizer file and tensors.  Data only: nothing in it is run or
unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import DamagedError, InputError
from hf_bridge.errors import WeightsError
from hf_bridge.family import Family
from hf_bridge.weights import Layout, first_word, matching, shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_JSON = 50_000_000
CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


@dataclass(frozen=True)
class Folder:
    """A folder in the library's layout, opened for reading."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_json(self.path / CONFIG)

    @property
    def tokenizer(self) -> Path | None:
        path = self.path / "tokenizer.json"
        return path if path.is_file() else None

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each tensor."""
        if (self.path / WEIGHTS).is_file():
            return dict.fromkeys(tensor_names(self.path / WEIGHTS), self.path / WEIGHTS)
        if not (self.path / INDEX).is_file():
            raise self._no_weights()
        listed = read_json(self.path / INDEX).get("weight_map")
        if not isinstance(listed, dict):
            raise DamagedError("damaged-json", f"{self.path / INDEX} has no weight_map")
        shards = {name: self._shard(name) for name in sorted(set(map(str, listed.values())))}
        held = {tensor: path for path in shards.values() for tensor in tensor_names(path)}
        if missing := sorted(listed.keys() - held.keys()):
            raise WeightsError(
                "weights-missing",
                f"{INDEX} lists {missing[0]}, which {listed[missing[0]]} does not hold",
            )
        return held

    def _shard(self, name: str) -> Path:
        if name != Path(name).name or name in ("", ".", ".."):
            raise DamagedError(
                "path-outside", f"{INDEX} names {name!r}, which is not a file of the folder"
            )
        if not (self.path / name).is_file():
            raise WeightsError("weights-missing", f"{INDEX} names {name}, which is not there")
        return self.path / name

    def _no_weights(self) -> WeightsError:
        pickled = sorted(p.name for p in self.path.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
        hint = (
            f"{pickled[0]} may run code when it is read; save it as safetensors first"
            if pickled
            else ""
        )
        return WeightsError(
            "weights-missing", f"{self.path} holds neither {WEIGHTS} nor {INDEX}", hint
        )


def open_folder(path: str | Path) -> Folder:
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            "cannot-read", f"there is no folder {str(folder)!r}", "nothing is downloaded unasked"
        )
    if not (folder / CONFIG).is_file():
        raise InputError("cannot-read", f"{str(folder)!r} holds no {CONFIG}")
    return Folder(folder)


def read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise DamagedError("damaged-json", f"{path} is larger than {MAX_JSON:,} bytes")
        value = json.loads(path.read_text("utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise InputError(
            "cannot-read", f"cannot read {str(path)!r}: {error.strerror or error}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DamagedError("damaged-json", f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DamagedError("damaged-json", f"{path} is not a JSON object")
    return value


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")


def tensor_names(path: Path) -> tuple[str, ...]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return tuple(file.keys())
    except (SafetensorError, OSError) as error:
        raise DamagedError(
            "damaged-weights", f"{path} is not a safetensors file: {error}"
        ) from None


def weights_dtype(folder: Folder) -> torch.dtype:
    """The dtype of the first floating tensor: what the file was saved in."""
    import torch
    from safetensors import safe_open

    for name, path in folder.files.items():
        with safe_open(path, framework="pt") as file:
            part = file.get_slice(name)
            index = tuple(slice(0, 1) for _ in part.get_shape())
            dtype: torch.dtype = (part[index] if index else file.get_tensor(name)).dtype
        if dtype.is_floating_point:
            return dtype
    return torch.float32


def load_weights(
    folder: Folder,
    family: Family,
    rows: Mapping[str, Layout],
    ours: Mapping[str, Tensor],
    aliases: Mapping[str, str],
) -> None:
    """Every tensor of the folder into its place, one at a time; each of ours and each of theirs is
    used once.

    ``aliases`` are names of theirs for a parameter that another row holds already: read only to be
    compared.
    """
    import torch
    from safetensors import safe_open

    names = _names(folder, family, {*rows, *aliases})
    if missing := [name for name in rows if name not in names]:
        raise WeightsError("weights-missing", f"{folder.path} does not hold {_listed(missing)}")
    by_file: dict[Path, list[str]] = {}
    for theirs in (name for name in (*rows, *aliases) if name in names):
        by_file.setdefault(folder.files[names[theirs]], []).append(theirs)
    with torch.no_grad():
        for compared in (False, True):  # what is compared comes after what it is compared to
            for path, wanted in by_file.items():
                with safe_open(path, framework="pt") as file:
                    for theirs in wanted:
                        if compared is (theirs in aliases):
                            tensor = file.get_tensor(names[theirs])
                            if compared:
                                _compare(theirs, tensor, ours[aliases[theirs]], path)
                            else:
                                _place(theirs, tensor, rows[theirs], ours, path)


def _names(folder: Folder, family: Family, known: set[str]) -> dict[str, str]:
    """Each name of the table -> the name in the file, which may lack the common first word."""
    word = first_word(family)
    bare = word and not any(name.startswith(f"{word}.") for name in folder.files)
    names = {}
    for written in folder.files:
        full = f"{word}.{written}" if bare and written not in known else written
        if (reason := matching(full, family.refuse_weights)) is not None:
            raise WeightsError(
                "weights-refused", f"{folder.files[written]}: {written} cannot be read: {reason}"
            )
        if matching(full, family.ignore_weights) is None:
            names[full] = written
    if unused := sorted(names.keys() - known):
        shown = _listed([names[name] for name in unused])
        raise WeightsError(
            "weights-unused",
            f"{folder.files[names[unused[0]]]} holds {shown}, which {family.file} has no place for",
        )
    return names


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _place(
    theirs: str, tensor: Tensor, layout: Layout, ours: Mapping[str, Tensor], path: Path
) -> None:
    if not tensor.dtype.is_floating_point:
        raise WeightsError(
            "weights-dtype", f"{path}: {theirs} is {tensor.dtype}, not a floating dtype"
        )
    if (expected := shapes(ours, layout)) != tensor.shape:
        message = (
            f"{path}: {theirs} is {tuple(tensor.shape)}, and config.json asks for {tuple(expected)}"
        )
        raise WeightsError("weights-shape", message)
    for name, part in layout.ours(tensor, ours).items():
        ours[name].copy_(part)


def _compare(theirs: str, tensor: Tensor, ours: Tensor, path: Path) -> None:
    if tensor.shape != ours.shape or not bool((tensor.to(ours.dtype) == ours.cpu()).all()):
        message = f"{path}: {theirs} differs from the weight that config.json ties it to"
        raise WeightsError("tied-differs", message)
