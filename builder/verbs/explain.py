"""Show the resolved model as one page: parameters, FLOPs, cache and memory of each part."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from builder.index import load_index
from builder.verbs import load, recipe_arguments
from builder.verbs.generate import within
from builder.verbs.train import shard_argument


def configure(parser: ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument(
        "--length", type=within(int, 1), metavar="N", help="tokens read; default: the context"
    )
    parser.add_argument(
        "--batch",
        type=within(int, 1),
        default=1,
        metavar="N",
        help="rows of a training step; default: 1",
    )
    parser.add_argument(
        "--dtype",
        choices=load_index().filler("section", "train").parameter("dtype").type.choices,
        help="of the cache, and of what training computes; default: the recipe's train.dtype",
    )
    parser.add_argument(
        "--world", type=within(int, 1), default=1, metavar="N", help="processes that train"
    )
    shard_argument(parser)
    parser.add_argument("--json", action="store_true", help="the same, for machines")


def run(args: Namespace) -> None:
    recipe = load(args)
    from builder.explain import as_json, page
    from builder.measure import measure

    shard = args.shard is not None
    costs = measure(recipe, args.length, args.batch, args.dtype, world=args.world, shard=shard)
    print(json.dumps(as_json(recipe, costs), indent=2) if args.json else page(recipe, costs))
