"""A disk that forgets: what may be left of a folder when the machine stops at some operation.

Every operation of ``builder.training.disk`` is recorded.  What no ``sync`` has followed may be
lost, torn or kept, whatever became of the rest; names are kept by a sync of their folder, and bytes
by one of their file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from builder.training import disk

OPERATIONS = ("new_folder", "write", "append", "save", "sync", "rename", "remove")


@contextmanager
def failing(at: int, code: int) -> Iterator[list[str]]:
    """The ``at``-th operation, from 0, fails with an error code; gives the names of those tried."""
    tried: list[str] = []

    def tried_or_failed(name: str, real: Callable) -> Callable:
        def operation(*given):
            tried.append(name)
            if len(tried) == at + 1:
                raise OSError(code, "the disk says no", str(given[0]))
            return real(*given)

        return operation

    with patch.multiple(
        disk, **{name: tried_or_failed(name, getattr(disk, name)) for name in OPERATIONS}
    ):
        yield tried


@dataclass(frozen=True)
class Change:
    """What an operation does: names of a folder that change together, or the bytes of a file.

    Folders and files are known by number, whatever they are called.
    """

    node: int  # whose sync makes it last
    names: tuple[tuple[int, str, int | None], ...] = ()  # folder, name, what it names then
    data: bytes | None = None


@dataclass
class Recorder:
    """Does every operation, and notes what it changed; 0 is the folder that all happens in."""

    root: Path
    log: list[Change | int] = field(default_factory=list)  # a number: that node was synced
    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    nodes: int = 0

    def take(self, path: Path) -> int:
        """Note what is there already, as lasting."""
        node = self.new()
        if path.is_dir():
            self.folders[node] = {}
            if path != self.root:
                self.link(path, node)
            for child in sorted(path.iterdir()):
                self.take(child)
        else:
            self.link(path, node)
            self.log += [Change(node, data=path.read_bytes()), node]
        return node

    def new(self) -> int:
        self.nodes += 1
        return self.nodes

    def find(self, path: Path) -> int | None:
        node: int | None = 0
        for word in path.relative_to(self.root).parts:
            node = None if node is None else self.folders.get(node, {}).get(word)
        return node

    def link(self, path: Path, node: int | None, *more: tuple[int, str, int | None]) -> None:
        folder = self.find(path.parent)
        assert folder is not None, path
        names = (*more, (folder, path.name, node))
        for home, name, held in names:
            self.folders[home].pop(name, None)
            if held is not None:
                self.folders[home][name] = held
        self.log.append(Change(folder, names))

    # The operations

    def new_folder(self, home: Path) -> Path:
        path = REAL["new_folder"](home)
        if self.find(home) is None:
            self.folders[(node := self.new())] = {}
            self.link(home, node)
        self.folders[(node := self.new())] = {}
        self.link(path, node)
        return path

    def filled(self, name: str, path: Path, *given) -> None:
        REAL[name](path, *given)
        node = self.find(path)
        if node is None:
            node = self.new()
            self.link(path, node)
        self.log.append(Change(node, data=path.read_bytes()))

    def write(self, path: Path, text: str) -> None:
        self.filled("write", path, text)

    def append(self, path: Path, text: str) -> None:
        self.filled("append", path, text)

    def save(self, path: Path, tensors) -> None:
        self.filled("save", path, tensors)

    def sync(self, path: Path) -> None:
        REAL["sync"](path)
        node = self.find(path)
        assert node is not None, path
        self.log.append(node)

    def rename(self, old: Path, new: Path) -> None:
        REAL["rename"](old, new)
        home, node = self.find(old.parent), self.find(old)
        assert home is not None and node is not None, old
        self.link(new, node, (home, old.name, None))

    def remove(self, path: Path) -> None:
        children = sorted(path.iterdir()) if path.is_dir() else []
        REAL["remove"](path)
        for child in children:
            self.link(child, None)
        self.link(path, None)


REAL = {name: getattr(disk, name) for name in OPERATIONS}


@contextmanager
def recorded(root: Path) -> Iterator[Recorder]:
    """Record what is done inside a folder, from what is there on."""
    recorder = Recorder(root)
    for child in sorted(root.iterdir()):
        recorder.take(child)
    recorder.log.append(0)
    recorder.log += [node for node in recorder.folders if node]
    with patch.multiple(disk, **{name: getattr(recorder, name) for name in OPERATIONS}):
        yield recorder


def leftovers(log: list[Change | int], start: int) -> Iterator[dict[int, object]]:
    """What the disk may hold after a crash at any operation from ``start`` on: by node, the names
    of a folder or the bytes of a file.
    """
    for end in range(start, len(log) + 1):
        done = log[:end]
        last_sync = {node: at for at, node in enumerate(done) if isinstance(node, int)}
        changes = [(at, c) for at, c in enumerate(done) if isinstance(c, Change)]
        open_ = [at for at, c in changes if at > last_sync.get(c.node, -1)]
        lost: list[dict[int, str]] = [{}, dict.fromkeys(open_, "lost")]
        lost += [{at: "lost"} for at in open_]
        lost += [{other: "lost" for other in open_ if other != at} for at in open_]
        torn = [at for at in open_ if done[at].data is not None]  # type: ignore[union-attr]
        lost += [{at: how} for at in torn for how in ("half", "blank")]
        for fate in lost:
            yield replay(changes, fate)


def replay(changes: list[tuple[int, Change]], fate: dict[int, str]) -> dict[int, object]:
    """The changes one after another, but for those that something befell."""
    held: dict[int, object] = {0: {}}
    for at, change in changes:
        if change.data is not None:
            torn = {"half": change.data[: len(change.data) // 2], "blank": bytes(len(change.data))}
            before = held.get(change.node, b"")
            held[change.node] = torn.get(fate[at], before) if at in fate else change.data
        elif at not in fate:
            for folder, name, node in change.names:
                names = held.setdefault(folder, {})
                assert isinstance(names, dict)
                names.pop(name, None)
                if node is not None:
                    names[name] = node
    return held


def restore(held: dict[int, object], folders: set[int], path: Path, node: int = 0) -> None:
    """Make a folder that holds what is left."""
    path.mkdir()
    names = held.get(node, {})
    assert isinstance(names, dict)
    for name, child in names.items():
        if child in folders:
            restore(held, folders, path / name, child)
        else:
            (path / name).write_bytes(held.get(child, b""))  # type: ignore[arg-type]
