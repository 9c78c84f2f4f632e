"""The bridge to Hugging Face folders and classes, in both directions.

``transformers`` is imported when something needs it.  Importing this package only arranges that
``AutoModelForCausalLM``, whenever it is imported, knows ``RecipeForCausalLM``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_bridge.registering import register_later

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import torch

    from builder.model import Model
    from builder.recipe import Recipe
    from builder.tokenizers import Tokenizer

__all__ = ["as_transformers", "as_transformers_tokenizer", "from_hf", "to_hf"]

register_later()


def from_hf(
    folder: str | Path,
    family: str | Path | None = None,
    dtype: torch.dtype | None = None,
    *,
    drop: Iterable[str] = (),
    hub: bool = False,
    config: str | Path | None = None,
) -> tuple[Model, Recipe]:
    """Our model with a folder's weights, and its recipe.

    ``family`` is a name or a file; ``drop`` names config fields to do without.  With ``hub`` the
    folder is a name on the hub, ``owner/name``: only then is anything downloaded.  A checkpoint in
    one file needs its ``family``, and, if it does not say how its model was built, a ``config``.
    """
    from hf_bridge.importing import from_hf

    return from_hf(folder, family, dtype, drop, hub, config)


def to_hf(
    model: Model,
    out: str | Path,
    family: str | Path | None = None,
    tokenizer: Tokenizer | None = None,
) -> str:
    """Write a model as a folder of the native class that fits, proved equal; give that class."""
    from hf_bridge.exporting import to_hf

    return to_hf(model, out, family, tokenizer).architecture


def as_transformers(model: Model) -> Any:
    """A model of ours as a ``PreTrainedModel``: ``generate``, pipelines, ``Trainer``."""
    from hf_bridge.model import as_transformers

    return as_transformers(model)


def as_transformers_tokenizer(tokenizer: Tokenizer) -> Any:
    """A tokenizer of ours as a ``PreTrainedTokenizerFast``."""
    from hf_bridge.tokenizer import as_transformers_tokenizer

    return as_transformers_tokenizer(tokenizer)
