"""Writing that survives a crash: each operation stands here once, so that a disk that fails, or a
machine that stops, can be tried at every one of them.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def new_folder(home: Path) -> Path:
    """An empty folder of a name that nobody has, inside ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    folder = home / f".tmp-{secrets.token_hex(6)}"
    folder.mkdir()
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors as a safetensors file, that others may read too."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(old: Path, new: Path) -> None:
    """Give a new name, in place of a file that has it, or of no folder; lasting after a ``sync`` of
    the folder around it.
    """
    os.replace(old, new)


def remove(path: Path) -> None:
    """A file, or a folder with all in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        write(beside, text)
        sync(beside)
        rename(beside, path)
        sync(path.parent)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
