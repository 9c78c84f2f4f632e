"""Checkpoints on disk: written beside, synced, renamed; read only after every digest is right.

``checkpoints/step_000600/`` holds ``model.safetensors``, ``training.safetensors`` (what optimizers
remember), ``average.safetensors`` if one is kept, ``state.json`` and ``manifest.json``, which has
the size and SHA-256 of each other file, and the SHA-256 of each tensor.  ``checkpoints/latest``
names the one that was finished last.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from builder.errors import DamagedError, InputError, ResourceError
from builder.training import disk
from builder.training.world import ALONE, World, local

NAME = re.compile(r"step_(\d{6,})")
MANIFEST = "manifest.json"
LATEST = "latest"


def step_of(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    assert found is not None, path
    return int(found[1])


def all_in(home: Path) -> list[Path]:
    """Every checkpoint, the oldest first, good or not."""
    found = (path for path in home.glob("step_*") if NAME.fullmatch(path.name))
    return sorted(found, key=step_of)


def candidates(home: Path) -> list[Path]:
    """Every checkpoint in the order in which a run tries them: the one that ``latest`` names, which
    was finished last, then the newest first.
    """
    found = all_in(home)[::-1]
    try:
        last = home / (home / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return found
    return sorted(found, key=lambda path: path != last)


def write(
    home: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    world: World = ALONE,
) -> Path:
    """Write a checkpoint, whole or not at all.  ResourceError if the disk does not take it.

    Where the world's weights are sharded each process writes its part; else the first writes all.
    """
    final = home / f"step_{step:06d}"
    folder: Path | None = None
    try:
        with _told_to_all(world, home, step):
            folder = disk.new_folder(home) if world.first else None
        folder = Path(world.told(folder))
        with _told_to_all(world, home, step):
            if world.first or world.shard:
                for name, group in tensors.items():
                    path = folder / f"{name}{_part(world)}.safetensors"
                    disk.save(path, {key: local(value) for key, value in group.items()})
                    disk.sync(path)
        with _told_to_all(world, home, step):
            if world.first:
                _complete(folder, {"step": step, **state})
                _settle(folder, final)
    finally:
        if folder is not None and world.first:
            shutil.rmtree(folder, ignore_errors=True)
    return final


def _part(world: World) -> str:
    return f"-{world.rank + 1}-of-{world.size}" if world.shard else ""


@contextmanager
def _told_to_all(world: World, home: Path, step: int) -> Iterator[None]:
    """What one process cannot write, none goes on without."""
    reason = None
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason := next(filter(None, world.all(reason)), None):
        kept = candidates(home)
        raise ResourceError(
            "checkpoint-failed",
            f"the checkpoint of step {step} cannot be written: {reason}",
            f"{kept[0]} is untouched" if kept else "there is none before it",
        )


def _complete(folder: Path, state: Mapping[str, Any]) -> None:
    """Add to a folder of tensors what else a checkpoint has; all of it reaches the disk."""
    disk.write(folder / "state.json", json.dumps(state, indent=2) + "\n")
    disk.sync(folder / "state.json")
    disk.write(folder / MANIFEST, manifest_text(manifest(folder)))
    disk.sync(folder / MANIFEST)
    disk.sync(folder)


def _settle(folder: Path, final: Path) -> None:
    """Give a folder its name, and then say that it is the last; a damaged one makes way."""
    if final.exists():
        disk.remove(final)
    disk.rename(folder, final)
    disk.sync(final.parent)
    disk.replace_text(final.parent / LATEST, f"{final.name}\n")


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


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest has one spelling, so that no byte of it can change unseen."""
    return json.dumps(manifest, indent=2) + "\n"


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
    step = read_state(path).get("step")
    if step != step_of(path):
        raise damaged(path / "state.json", f"is of step {step}: the folder has another's name")


def listed(path: Path) -> dict[str, Any]:
    """The files of a checkpoint, as its manifest has them."""
    try:
        text = (path / MANIFEST).read_bytes().decode()
        manifest = json.loads(text)
        files: dict[str, Any] = manifest["files"]
        good = manifest["sha256"] == own_digest(files) and text == manifest_text(manifest)
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
    for path in candidates(home):
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
    """The tensors of a name, put together if they are sharded; without any file, none.

    DamagedError if it is no safetensors file.
    """
    return dict(each(path, name))


def each(path: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    """One tensor after another, so that no more than one is held."""
    files = files_of(path, name)
    try:
        with ExitStack() as stack:
            parts = [stack.enter_context(safe_open(file, "pt")) for file in files]
            for key in parts[0].keys() if parts else ():
                found = [part.get_tensor(key) for part in parts]
                yield key, found[0] if len(found) == 1 or not found[0].dim() else torch.cat(found)
    except (OSError, SafetensorError) as error:
        raise damaged(files[0], f"cannot be read: {error}") from error


def files_of(path: Path, name: str) -> list[Path]:
    """``model.safetensors``, or its parts ``model-1-of-2.safetensors`` in their order."""
    if (alone := path / f"{name}.safetensors").exists():
        return [alone]
    found = {int(f.name.split("-")[1]): f for f in path.glob(f"{name}-*-of-*.safetensors")}
    return [found[number] for number in sorted(found)]


def read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise damaged(path / "state.json", f"cannot be read: {error}") from error
    return state


def prune(home: Path, keep: int) -> None:
    """Remove all but the last ``keep`` checkpoints, once the newest is found to be good."""
    old = all_in(home)[:-keep]
    if old:
        verify(all_in(home)[-1])
    for path in old:
        with suppress(OSError):  # it only takes room
            disk.remove(path)
