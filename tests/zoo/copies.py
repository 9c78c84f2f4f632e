"""A copy of our packages with a bug in it, imported in place of the checkout's."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("blocks", "builder", "hf_bridge", "recipes", "tests")


@contextmanager
def copied(file: str, text: str) -> Iterator[Path]:
    """A copy of the checkout in which ``file`` holds this text, first in the path of imports.

    Nothing of it may have been imported before: this is for a process of its own.
    """
    assert not set(PACKAGES) - {"tests"} & set(sys.modules), "the checkout is imported already"
    with TemporaryDirectory(prefix="zoo-") as folder:
        home = Path(folder)
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, home / package, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", home)
        (home / file).write_text(text, "utf-8")
        sys.path.insert(0, str(home))
        importlib.invalidate_caches()
        for package in PACKAGES[:2]:
            (found,) = importlib.import_module(package).__path__
            assert Path(found) == home / package, f"{package} is imported from {found}"
        yield home
