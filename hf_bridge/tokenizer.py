"""A tokenizer of ours as one of the library's: both are covers over the same ``tokenizer.json``."""

# The library is typed in parts only.
# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from builder.tokenizers import Tokenizer


def as_transformers_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The same ids, special tokens never read out of the text; batches are padded on the left."""
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    backend = Backend.from_str(tokenizer.to_json())
    ids = token_ids(tokenizer)
    words = {role: None if id is None else backend.id_to_token(id) for role, id in ids.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": word for role, word in words.items() if word is not None},
    )


def token_ids(tokenizer: Tokenizer | None) -> dict[str, int | None]:
    """The tokens that begin, end and pad a text: ours pads with the end, which is masked anyway."""
    if tokenizer is None:
        return dict.fromkeys(("bos", "eos", "pad"))
    try:
        begin = tokenizer.prompt("")[0]
    except InputError:  # nothing to start from
        begin = None
    return {"bos": begin, "eos": tokenizer.end, "pad": tokenizer.end}
