"""``python -m tests.zoo [NAME ...]``: put each bug into the code, and tell which law sees it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from tests.zoo.children import in_children
from tests.zoo.copies import ROOT, copied
from tests.zoo.mutants import MUTANTS, Mutant, bug

RECIPES = 400  # without a complaint, and the bug survives
SECONDS = 600
AT_ONCE = 2
UNCHANGED = bug("unchanged", "blocks/mask.py", "our code as it is, which no law may complain about")


def hunted(mutant: Mutant, recipes: int = RECIPES) -> tuple[str, int, str]:
    """Which law sees a bug, after how many recipes, and what it says."""
    text = (ROOT / mutant.file).read_text("utf-8")
    with copied(mutant.file, mutant.applied(text)):
        from tests.zoo.hunt import hunt  # the copy's, with its blocks and builder

        found = hunt(recipes)
    return found.law, found.recipes, f"{found.said} also: {found.also}"


def main(names: Sequence[str]) -> int:
    """A line for each bug; 1 if one survives."""
    import hypothesis  # noqa: F401  # before the forks

    torch.set_num_threads(1)
    every = (*MUTANTS, UNCHANGED)
    chosen = [mutant for mutant in every if not names or mutant.name in names]
    faults = 0
    print("| bug | seen by | after recipes | seconds |\n|---|---|---|---|")
    for mutant, answer, seconds in in_children(chosen, hunted, AT_ONCE, SECONDS):
        law, count, said = answer or ("none: the process died", 0, "")
        print(f"| {mutant.name} | {law or 'NO LAW'} | {count} | {seconds:.0f} |", flush=True)
        print(f"    {said[:300]}", file=sys.stderr)
        faults += bool(law) == (mutant is UNCHANGED)
    print(f"\n{len(chosen)} hunted, {faults} not as they should be", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
