"""Checkpoints on disk: written beside, synced, renamed; read only after every digest is right.

``checkpoints/step_000600/`` holds ``model.safetensors``, ``training.safetensors`` (the optimizer's
state), ``state.json`` and ``manifest.json``, which has the size and SHA-256 of each other file, and
the SHA-256 of each tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from builder.errors import DamagedError, InputError, ResourceError

NAME = re.compile(r"step_(\d{6,})")
MANIFEST = "manifest.json"


def step_of(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    assert found is not None, path
    return int(found[1])


def all_in(home: Path) -> list[Path]:
    """Every checkpoint, the oldest first, good or not."""
    found = (path for path in home.glob("step_*") if NAME.fullmatch(path.name))
    return sorted(found, key=step_of)


def write(
    home: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> Path:
    """Write a checkpoint, whole or not at all.  ResourceError if the disk does not take it."""
    final = home / f"step_{step:06d}"
    folder = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=home))
        for name, group in tensors.items():
            save_file(
                {key: value.detach().contiguous() for key, value in group.items()},
                folder / f"{name}.safetensors",
            )
        (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n")
        (folder / MANIFEST).write_text(json.dumps(manifest(folder), indent=2) + "\n")
        settle(folder, final)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        kept = all_in(home)
        held = f"{kept[-1]} is untouched" if kept else "there is none before it"
        raise ResourceError(
            "checkpoint-failed", f"the checkpoint of step {step} cannot be written: {reason}", held
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return final


def settle(folder: Path, final: Path) -> None:
    """Give a folder its name, once its files are on the disk; a damaged one makes way."""
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)  # what makes temporary files hides them from others
        sync(path)
    folder.chmod(0o755)
    sync(folder)
    if final.exists():
        shutil.rmtree(final)
    folder.rename(final)
    sync(final.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def manifest(folder: Path) -> dict[str, Any]:
    files = {}
    for path in sorted(path for path in folder.iterdir() if path.name != MANIFEST):
        with path.open("rb") as file:
            files[path.name] = {
                "bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
        if path.suffix == ".safetensors":
            files[path.name]["tensors"] = tensor_digests(path)
    return {"files": files, "sha256": own_digest(files)}


def own_digest(files: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def tensor_digests(path: Path) -> dict[str, str]:
    """The digest of each tensor's bytes, by the places that the file's own header names."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"a header of {size} bytes in {path}")
        header = json.loads(file.read(size))
        digests = {}
        for name in sorted(header.keys() - {"__metadata__"}):
            begin, end = header[name]["data_offsets"]
            file.seek(8 + size + begin)
            digests[name] = hashlib.sha256(file.read(end - begin)).hexdigest()
    return digests


def verify(path: Path) -> None:
    """DamagedError names the first file that is not as it was written, and the tensor."""
    for name, entry in listed(path).items():
        file = path / name
        if not file.is_file():
            raise damaged(file, "is missing")
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise damaged(file, f"has {size} bytes, and was written with {entry['bytes']}")
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        if sha256 != entry["sha256"]:
            raise damaged(file, f"is not as it was written{damaged_tensor(file, entry)}")


def listed(path: Path) -> dict[str, Any]:
    """The files of a checkpoint, as its manifest has them."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files: dict[str, Any] = manifest["files"]
        good = manifest["sha256"] == own_digest(files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path / MANIFEST, f"cannot be read: {error}") from None
    if not good:
        raise damaged(path / MANIFEST, "is not as it was written")
    return files


def damaged(file: Path, how: str) -> DamagedError:
    return DamagedError("damaged-file", f"{file} {how}")


def damaged_tensor(file: Path, entry: Mapping[str, Any]) -> str:
    try:
        found = tensor_digests(file)
        return next(
            f": tensor {name!r}"
            for name, sha256 in entry["tensors"].items()
            if found.get(name) != sha256
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, StopIteration):
        return ": its header"


def newest_good(home: Path, say: Callable[[str], None]) -> Path:
    """The newest checkpoint that is as it was written; what is passed over is said.

    InputError ``no-checkpoint`` if there is none, DamagedError if all are damaged.
    """
    damage: DamagedError | None = None
    for path in reversed(all_in(home)):
        try:
            verify(path)
        except DamagedError as error:
            damage = error
            say(f"passing over {path.name}: {error.message}")
            continue
        return path
    if damage is not None:
        raise damage
    raise InputError(
        "no-checkpoint", f"{home.parent} has no checkpoint", "it was stopped before its first one"
    )


def read(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file.  DamagedError if it is no safetensors file."""
    file = path / f"{name}.safetensors"
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise damaged(file, f"cannot be read: {error}") from error
    return tensors


def read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise damaged(path / "state.json", f"cannot be read: {error}") from error
    return state


def prune(home: Path, keep: int) -> None:
    """Remove all but the last ``keep`` checkpoints: called when the newest stands."""
    for path in all_in(home)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
