"""What the laws are asked about, as plain data: each process makes its own recipes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Page = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A page and the seed of its weights; where they were drawn, the same model spelt otherwise,
    and two pages that differ by one block.
    """

    page: Page
    seed: int
    respelled: Page | None = None
    swapped: tuple[Page, Page] | None = None

    def mentions(self, words: Iterable[str]) -> bool:
        """Whether one of the words stands on the page."""
        page = repr(self.page)
        return any(f"'{word}'" in page for word in words)
