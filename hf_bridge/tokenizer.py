"""Tokenizers, ours and the library's: both are covers over the same ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


def as_transformers_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer of ours as one of the library's: the same ids; batches are padded on the left."""
    from tokenizers import Tokenizer as Fast
    from transformers import PreTrainedTokenizerFast

    fast = Fast.from_str(json_of(tokenizer))
    end = None if tokenizer.end is None else fast.id_to_token(tokenizer.end)
    special = {} if end is None else {"bos_token": end, "eos_token": end, "pad_token": end}
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **special,
    )


def json_of(tokenizer: Tokenizer) -> str:
    """The tokenizer.json that a tokenizer saves."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        tokenizer.save(path)
        return path.read_text("utf-8")


def end_token(folder: Path) -> Any:
    """The token that a foreign folder ends texts with: an id, a word, or None if it does not say."""
    for name, key in (("generation_config.json", "eos_token_id"), ("config.json", "eos_token_id")):
        path = folder / name
        if path.is_file() and (told := json.loads(path.read_text("utf-8")).get(key)) is not None:
            return told[0] if isinstance(told, list) and told else told
    return None
