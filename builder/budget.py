"""What a page may cost: its work is counted, so that a hostile one is left before it takes long.

Blocks that name each other twice double what is written at each step, and a setting that reaches
through copies does so again; neither shows in the size of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder.errors import Finding, Mark, RecipeError

MAX_STEPS = 60_000  # of expanding nodes, and of looking for what a path names
MAX_LEAVES = 10_000
MAX_EDGES = 100_000  # that labels draw
MAX_TIMES = 10_000  # that one thing is repeated
MAX_NESTED = 64  # nodes in nodes, through the names of blocks too
MAX_FAULTS = 100  # that are looked for; more would only echo


@dataclass
class Budget:
    """Counts what one page has cost so far."""

    steps: int = 0
    leaves: int = 0
    edges: int = 0

    def step(self, mark: Mark) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise _too_many(f"what is written here unfolds to more than {MAX_STEPS:,} nodes", mark)

    def leaf(self, mark: Mark, times: int = 1) -> None:
        self.leaves += times
        if self.leaves > MAX_LEAVES:
            raise _too_many(f"the model has more than {MAX_LEAVES:,} leaves", mark)

    def edge(self, mark: Mark, times: int) -> None:
        self.edges += times
        if self.edges > MAX_EDGES:
            raise _too_many(f"labels are read more than {MAX_EDGES:,} times", mark)


def _too_many(message: str, mark: Mark) -> RecipeError:
    help = "fewer layers, or fewer names within names"
    return RecipeError([Finding("too-many-nodes", message, mark, help)])


def too_deep(mark: Mark) -> Finding:
    """The finding of nodes that hold each other without end, or nearly."""
    message = f"nodes are nested more than {MAX_NESTED} deep, names of blocks looked through"
    return Finding("too-deep", message, mark, "a list holds as many nodes, one after another")
