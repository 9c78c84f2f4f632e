"""Read a Hugging Face folder into a run: the recipe its config means, and its weights.

Only data is read: config.json by allow-list, weights from safetensors, tokenizer.json.  Nothing is
downloaded, but with --hub, where HF_DIR is a name on the hub such as owner/name.  A checkpoint in
one file, of torch or of llama2.c, is read with --family: docs/checkpoints.md.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

DTYPES = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="HF_DIR", help="config.json and safetensors; or a file of weights"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder to write")
    parser.add_argument("--family", metavar="NAME|FILE", help="read it as this family")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the weights; as in the file if not said"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="how the model of a file of weights was built"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json")
    parser.add_argument(
        "--hub", action="store_true", help="HF_DIR is a name on the hub: download it"
    )
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="FIELD",
        help="do without a field of config.json",
    )


def run(args: Namespace) -> None:
    import torch

    from builder.tokenizers import Tokenizer
    from builder.training.runs import create_run, save_checkpoint
    from hf_bridge.importing import from_folder, opened

    dtype = getattr(torch, DTYPES[args.dtype]) if args.dtype else None
    folder = opened(args.folder, args.hub, args.family, args.config)
    model, recipe = from_folder(folder, args.family, dtype, args.drop)
    file = args.tokenizer or folder.tokenizer
    tokenizer = None if file is None else Tokenizer.load(file)
    command = ["import", str(args.folder), str(args.run)]
    save_checkpoint(create_run(recipe, tokenizer, command, path=args.run), model)
    print(recipe.text, end="")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"\n{count:,} parameters in {args.run}")
