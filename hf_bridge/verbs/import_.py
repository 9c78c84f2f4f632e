"""Read a Hugging Face folder into a run: the recipe its config means, and its weights.

Only data is read: config.json by allow-list, weights from safetensors, tokenizer.json.  Nothing is
downloaded.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="HF_DIR", help="config.json and safetensors")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder to write")
    parser.add_argument("--family", metavar="NAME|FILE", help="read it as this family")
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="FIELD",
        help="do without a field of config.json",
    )


def run(args: Namespace) -> None:
    from builder.runs import create_run, save_checkpoint
    from builder.tokenizers import Tokenizer
    from hf_bridge.importing import from_hf
    from hf_bridge.read_hf import open_folder

    model, recipe = from_hf(args.folder, args.family, drop=args.drop)
    file = open_folder(args.folder).tokenizer
    tokenizer = None if file is None else Tokenizer.load(file)
    command = ["import", str(args.folder), str(args.run)]
    save_checkpoint(create_run(recipe, tokenizer, command, path=args.run), model)
    print(recipe.text, end="")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"\n{count:,} parameters in {args.run}")
