"""Write a run as a Hugging Face folder that plain from_pretrained loads, proved equal.

The class is the native one that fits the recipe, else RecipeForCausalLM, which loads after import
hf_bridge.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from hf_bridge.verbs.import_ import DTYPES


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder with a checkpoint")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--family", metavar="NAME|FILE", help="this family, or the reason why not")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights; the run's if not said")


def run(args: Namespace) -> None:
    import torch

    from builder.errors import render
    from builder.training.runs import open_run, say
    from hf_bridge.card import story_of
    from hf_bridge.exporting import to_hf
    from hf_bridge.folder import WEIGHTS, common_dtype, headers

    opened = open_run(args.run)
    tokenizer = opened.tokenizer if (opened.path / "tokenizer.json").exists() else None
    held = headers(opened.latest(lambda _: None) / WEIGHTS)
    dtype = getattr(torch, DTYPES[args.dtype]) if args.dtype else common_dtype(held.values())
    written = to_hf(opened.model(dtype=dtype), args.out, args.family, tokenizer, story_of(opened))
    if written.why is not None:
        say(render(replace(written.why.findings[0], severity="warning")))
    print(f"{written.architecture} in {args.out}: loaded again, logits equal")
