"""Ask whether a recipe keeps every law: causal, cached as if read at once, padded, packed, ...

A law that is broken is told with its sentence, the first leaf that is at fault, that leaf's place on
the page, and the fewest tokens that show it.  Exit 0 if all hold, 1 if not.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace

from builder.verbs import load, recipe_arguments
from builder.verbs.generate import within


def configure(parser: ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument(
        "--seed", type=within(int, 0), default=0, metavar="N", help="of weights and tokens; default 0"
    )
    parser.add_argument("--json", action="store_true", help="the same, for machines")


def run(args: Namespace) -> int:
    recipe = load(args)
    from builder.laws.report import Examination, as_json, line, paragraph

    examination = Examination.of(recipe, args.seed)
    if not args.json:
        print(f"{recipe.name} {examination.twin}; seeds {', '.join(map(str, examination.seeds))}")
    answers = []
    for answer in examination.answers():
        answers.append(answer)
        if not args.json:
            print(line(answer), flush=True)
            if answer.failure is not None:
                print(paragraph(answer, colour=sys.stdout.isatty()), flush=True)
    if args.json:
        print(json.dumps(as_json(args.recipe, examination, answers), indent=2))
    return int(any(answer.failure is not None for answer in answers))
