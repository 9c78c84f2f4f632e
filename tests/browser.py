"""A headless browser, for what is to be looked at."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to draw with")


def browse(folder: Path, *words: str) -> str:
    """Run chromium, its own files in a folder; what it prints."""
    assert CHROMIUM is not None
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    plain = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    own = [f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars"]
    done = subprocess.run(
        [CHROMIUM, *plain, *quiet, *own, *words], capture_output=True, timeout=120, check=True
    )
    return done.stdout.decode()


def rows_of(png: bytes) -> bytes:
    """The bytes of a PNG's rows, as they were filtered; a blank page's are all but alike."""
    packed, at = b"", 8
    while at < len(png):
        length, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        packed += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return zlib.decompress(packed)
