"""``python -m tests.zoo [NAME ...]``: put each bug into the code, and tell which law sees it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial

import torch

from tests.zoo.children import in_children
from tests.zoo.copies import ROOT, copied
from tests.zoo.mutants import MUTANTS, UNCHANGED, Mutant
from tests.zoo.question import Question

SHARDS, RECIPES = 4, 100  # so many draws, of so many recipes each
HOLDING = 3  # recipes for each word, as some are drawn seldom
FEW = 40  # of them all laws are asked about, where the one that should complain does not
SECONDS = 300
AT_ONCE = 2


def questions(shards: int, holding: int) -> list[Question]:
    """The recipes that the laws are asked about, the same for every bug."""
    drawn = in_children(range(shards + 1), partial(_drawn, holding=holding), AT_ONCE, SECONDS)
    found = {number: shard for number, shard, _ in drawn}
    assert None not in found.values(), "a process that drew recipes died"
    return [question for number in range(shards, -1, -1) for question in found[number] or []]


def _drawn(number: int, holding: int) -> list[Question]:
    with copied(UNCHANGED.file, (ROOT / UNCHANGED.file).read_text("utf-8")):
        from tests.zoo.hunt import drawn, words_of_models

        if number:
            return drawn(number, RECIPES)
        words = words_of_models() if holding else []
        return [question for word in words for question in drawn(0, holding, [word])]


def hunted(mutant: Mutant, every: Sequence[Question]) -> tuple[str, int, str]:
    """Which law or test sees a bug, after how many recipes, and what it says.

    First is asked what is known to see it, and about the recipes that mention its file's words.
    """
    text = (ROOT / mutant.file).read_text("utf-8")
    words = mutant.words(text)
    near = sorted(every, key=lambda question: not question.mentions(words))
    with copied(mutant.file, mutant.applied(text)) as home:
        from tests.zoo.hunt import ask_laws, ask_tests

        if mutant is UNCHANGED:
            return ask_laws(near[:FEW])
        of_tests = mutant.seen_by.startswith("test_")
        found = ask_tests(home, [mutant.seen_by]) if of_tests else ask_laws(near, mutant.seen_by)
        found = found if found[0] else ask_laws(near[:FEW])
        return found if found[0] else ask_tests(home)


def main(names: Sequence[str], shards: int = SHARDS, holding: int = HOLDING) -> int:
    """A line for each bug; 1 if one survives, or is not seen by what is known to see it."""
    import hypothesis  # noqa: F401  # before the forks
    import pytest  # noqa: F401

    torch.set_num_threads(1)
    began = time.monotonic()
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    hunt = partial(hunted, every=questions(shards, holding))
    wrong = 0
    print("| bug | what it is | seen by | recipe |\n|---|---|---|---|")
    for mutant, answer, seconds in in_children(chosen, hunt, AT_ONCE, SECONDS):
        seen_by, count, said = answer or ("none: the process died", 0, "")
        wrong += seen_by != mutant.seen_by
        print(
            f"| {mutant.name} | {mutant.story} | {seen_by or 'NONE'} | {count or ''} |", flush=True
        )
        print(f"    {seconds:.0f} s: {said[:300]}", file=sys.stderr)
    minutes = (time.monotonic() - began) / 60
    print(f"\n{len(chosen)} in {minutes:.1f} minutes, {wrong} not as expected", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
