"""Ask whether a recipe keeps every law: causal, cached as if read at once, padded, packed, ...

A law that is broken is told with the first leaf at fault, that leaf's place on the page, and the
fewest tokens that show it.  A small twin of the recipe is asked, which has every distinct layer.
Exit 1 if a law is broken.
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
        "--seed",
        type=within(int, 0),
        default=0,
        metavar="N",
        help="of weights and tokens; default 0",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="where, with its kernels; default cpu"
    )
    parser.add_argument("--json", action="store_true", help="the same, for machines")


def run(args: Namespace) -> int:
    recipe = load(args)
    import torch

    from builder.devices import pick_device
    from builder.laws.examine import Answer, Examination
    from builder.laws.report import as_json, told

    torch.set_num_threads(1)  # what is this small is slower when it is shared out
    answers: list[Answer] = []
    with pick_device(args.device):
        examination = Examination.of(recipe, args.seed)
        if not args.json:
            print(*filter(None, (str(examination), examination.limits)), sep="\n", flush=True)
        for answer in examination.answers():
            if not args.json:
                print(told(answer, answers, colour=sys.stdout.isatty()), flush=True)
            answers.append(answer)
    if args.json:
        print(json.dumps(as_json(args.recipe, examination, answers), indent=2))
    return int(any(answer.failure is not None for answer in answers))
