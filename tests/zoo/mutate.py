"""``python -m tests.zoo.mutate SOWN [SAMPLE]``: which of the mutants that ``sow.py`` made survive.

Each is put into a copy of the code, as a bug of the zoo is; first the tests that mention its file's
word are run, then the laws are asked.
"""

from __future__ import annotations

import difflib
import json
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tests.zoo.__main__ import questions
from tests.zoo.children import in_children
from tests.zoo.copies import ROOT, copied
from tests.zoo.question import Question

TESTS = ("test_blocks.py", "test_wiring.py", "test_cache.py", "test_assemble.py", "test_mixers.py")
RECIPES = 40
SECONDS = 300  # a process that takes longer, or dies, gives no answer
AT_ONCE = 2


@dataclass(frozen=True)
class Sown:
    """One mutant: the whole text of a file, and the line that is another."""

    file: str
    line: int
    operator: str
    text: str

    def change(self) -> str:
        """The lines that went and came, as one line."""
        before = (ROOT / self.file).read_text("utf-8").splitlines()
        lines = list(difflib.unified_diff(before, self.text.splitlines(), n=0, lineterm=""))[3:]
        return " ⟶ ".join(f"`{line[1:].strip()}`" for line in lines)


def hunted(sown: Sown, every: Sequence[Question]) -> str:
    """The test or law that sees a mutant, or nothing."""
    word = Path(sown.file).stem
    tests = [
        test for test in TESTS if re.search(rf"\b{word}\b", (ROOT / "tests" / test).read_text())
    ]
    near = sorted(every, key=lambda question: not question.mentions(word))[:RECIPES]
    with copied(sown.file, sown.text) as home:
        try:
            from tests.zoo.hunt import ask_laws, ask_tests
        except Exception as error:
            return f"the import: {error}"
        found = ask_laws(near[:1])[0] or (tests and ask_tests(home, tests)[0])
        return found or ask_laws(near[1:])[0]


def main(path: str, sample: str = "0") -> None:
    """A line for each that survives, and the count of all; of a sample, if one is asked for."""
    import hypothesis  # noqa: F401  # before the forks
    import pytest  # noqa: F401

    torch.set_num_threads(1)
    began = time.monotonic()
    all_sown = [Sown(**json.loads(line)) for line in Path(path).read_text("utf-8").splitlines()]
    chosen = random.Random(0).sample(all_sown, int(sample) or len(all_sown))
    killed = endless = 0
    print("| place | change |\n|---|---|", flush=True)
    hunt = partial(hunted, every=questions(shards=1))
    for number, (sown, seen_by, _) in enumerate(in_children(chosen, hunt, AT_ONCE, SECONDS), 1):
        killed += bool(seen_by)
        endless += seen_by is None
        if not seen_by:
            note = "" if seen_by == "" else " (no answer)"
            print(f"| {sown.file}:{sown.line}{note} | {sown.change()} |", flush=True)
        if number % 20 == 0:
            minutes = (time.monotonic() - began) / 60
            print(
                f"{killed} of {number} killed, {minutes:.0f} minutes", file=sys.stderr, flush=True
            )
    print(
        f"\n{killed} of {len(chosen)} killed, {endless} gave no answer; drawn from {len(all_sown)}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
