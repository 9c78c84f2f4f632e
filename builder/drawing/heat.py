"""Square maps of weights as inline SVG, side by side: dark is much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from builder.drawing.svg import shown

CELL, SIDE, GAP, TOP = 12, 64, 28, 64
INK = "#1f6fb4"


@dataclass(frozen=True)
class Heat:
    """Weights of each head, a row for each token that reads and a column for each that is read."""

    title: str
    words: Sequence[str] = field(repr=False)
    heads: Sequence[Sequence[Sequence[float]]] = field(repr=False)

    def _repr_html_(self) -> str:
        """The picture, for a notebook."""
        size = CELL * len(self.words)
        width, height = len(self.heads) * (SIDE + size + GAP), TOP + size + 8
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                f'font-family="sans-serif" font-size="9" fill="#777777">',
                f"<title>{shown(self.title)}</title>",
                *(mark for n in range(len(self.heads)) for mark in self._head(n, size)),
                "</svg>",
            ]
        )

    def _head(self, number: int, size: int) -> Iterator[str]:
        left = number * (SIDE + size + GAP) + SIDE
        yield f'<text x="{left}" y="10">{shown(self.title)}, head {number}</text>'
        for n, word in enumerate(self.words):
            place = CELL * n + CELL // 2
            y = TOP + place + 3
            yield f'<text x="{left - 4}" y="{y}" text-anchor="end">{shown(word)}</text>'
            turned = f"translate({left + place + 3} {TOP - 4}) rotate(-90)"
            yield f'<text transform="{turned}">{shown(word)}</text>'
        yield f'<rect x="{left}" y="{TOP}" width="{size}" height="{size}" fill="#f6f7f8"/>'
        for i, row in enumerate(self.heads[number]):
            for j, weight in enumerate(row[: i + 1]):
                if weight >= 0.01:
                    label = f"{self.words[i]} reads {self.words[j]}: {weight:.2f}"
                    yield (
                        f'<rect x="{left + CELL * j}" y="{TOP + CELL * i}" width="{CELL}" '
                        f'height="{CELL}" fill="{INK}" fill-opacity="{min(weight, 1):.2f}">'
                        f"<title>{shown(label)}</title></rect>"
                    )
