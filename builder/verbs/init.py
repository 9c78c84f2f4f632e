"""Write a commented recipe to start from, and the schema that lets an editor help with it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from builder.errors import InputError
from builder.verbs import schema

SCHEMA = "recipe.schema.json"  # beside the recipe, whose first line names it
STARTER = """\
# LLaMA (Touvron et al. 2023, arXiv:2302.13971), at a size that trains in two minutes on two cores.
# `python -m builder list` shows every block that could stand here, `list attention` one in full.
recipe: 1
name: llama

# Sizes. A block takes those it names: `glu` reads dim and ff. Expressions may use the others, as
# in `ff: 8 * dim // 3`.
dims: {dim: 160, heads: 4, ff: 448, vocab: 2048, context: 128}

# A block is a sequence. `residual: f` is x + f(x), so this is a pre-norm decoder; for post-norm
# write `- residual: f` and then `- rmsnorm`.
blocks:
  decoder:
    - residual: [rmsnorm, {attention: {position: rope}}] # add `kv_heads: 2` for grouped queries
    - residual: [rmsnorm, {glu: {act: silu}}]

# The model itself, from tokens to logits.
model:
  - token_embedding
  - {repeat: 4, block: decoder}
  - rmsnorm
  - lm_head # `{lm_head: {tie: true}}` shares the embedding's weights

tokenizer: bpe # trained on the data, as large as vocab
data: python_docs # the prose that comes with Python: no download
train: {steps: 600, batch: 12, lr: 1.0e-3}
"""


def configure(parser: ArgumentParser) -> None:
    default = Path("llama.yaml")
    parser.add_argument(
        "out", nargs="?", type=Path, default=default, metavar="OUT", help=f"default: {default}"
    )


def run(args: Namespace) -> None:
    write(args.out)
    print(f"{args.out}: now try `python -m builder explain {args.out}`")


def write(out: Path) -> None:
    """The recipe, and its schema unless one is there.  InputError where the recipe exists."""
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(f"{schema.modeline(SCHEMA)}\n{STARTER}")
        if not (beside := out.parent / SCHEMA).exists():
            schema.write(beside, schema.schema_text())
    except FileExistsError:
        raise InputError(
            "file-exists", f"{str(out)!r} exists already", "choose another name"
        ) from None
    except OSError as error:
        raise InputError("cannot-write", f"cannot write {str(out)!r}: {error.strerror}") from None
