"""Text that goes on: prompts, batches of prompts, and a conversation that keeps its cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from builder.errors import InputError
from builder.tokenizers import TextStream, Tokenizer

if TYPE_CHECKING:
    from blocks.cache import Cache
    from builder.model import Model

Write = Callable[[str], None]


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen; temperature 0 takes the likeliest."""

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None


def encode_prompt(tokenizer: Tokenizer, prompt: str, context: int) -> list[int]:
    """A prompt's tokens.  InputError if the context has no room for one more."""
    ids = tokenizer.prompt(prompt)
    if len(ids) >= context:
        message = (
            f"the prompt has {len(ids)} tokens, and context={context} must hold it and what follows"
        )
        raise InputError("prompt-too-long", message, f"at most {context - 1} tokens")
    return ids


def continue_text(
    model: Model,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    new: int,
    sampling: Sampling,
    write: Write,
    **steps: Any,
) -> list[int]:
    """Continue one prompt, writing the new text as it comes; gives all tokens.  ``steps`` says how
    they run, as ``generate`` takes it.
    """
    stream = TextStream(tokenizer, prompt)
    ids = torch.tensor([prompt], device=device_of(model))
    show = showing(stream, tokenizer, write)
    out = model.generate(ids, new, stop=stops(tokenizer), stream=show, **asdict(sampling), **steps)
    write(stream.finish())
    found: list[int] = out[0].tolist()
    return found


def continue_all(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    new: int,
    sampling: Sampling,
    **steps: Any,
) -> list[str]:
    """Continue prompts of any lengths at once; gives each whole text."""
    ids, padding = padded(prompts, device_of(model))
    given = asdict(sampling) | steps
    out = model.generate(ids, new, stop=stops(tokenizer), padding=padding, **given)
    return [
        tokenizer.decode(row[ids.shape[1] - len(prompt) :].tolist())
        for row, prompt in zip(out, prompts, strict=True)
    ]


def padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts of any lengths as one, (B, T), with padding on the left, and where that is."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    padding = torch.ones(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        padding[row, longest - len(prompt) :] = False
    return ids.to(device), padding.to(device)


@dataclass
class Conversation:
    """Turns of text on one context: what was read stays in the cache, and only the new is read."""

    model: Model
    tokenizer: Tokenizer
    sampling: Sampling
    new: int
    ids: list[int] = field(default_factory=list)
    cache: Cache | None = None

    def answer(self, text: str, write: Write) -> None:
        """Read a turn, and write what follows it.  InputError if the context is full."""
        context = self.model.recipe.graph.context
        asked = self.tokenizer.encode(f"\n{text}") if self.ids else self.tokenizer.prompt(text)
        room = context - len(self.ids) - len(asked)
        if room < 1:
            message = f"{len(self.ids)} + {len(asked)} tokens leave no room in context={context}"
            raise InputError("prompt-too-long", message, "/reset starts again")
        ids = [*self.ids, *asked]
        cache = self.model.new_cache(1) if self.cache is None else self.cache
        unread = ids[len(cache) :]
        self.cache = None  # until it is whole again: a Ctrl-C may come between
        stream = TextStream(self.tokenizer, ids)
        out = self.model.generate(
            torch.tensor([unread], device=device_of(self.model)),
            min(self.new, room),
            stop=stops(self.tokenizer),
            stream=showing(stream, self.tokenizer, write),
            cache=cache,
            **asdict(self.sampling),
        )
        write(stream.finish())
        self.ids = ids + out[0, len(unread) :].tolist()
        self.cache = cache

    def reset(self) -> None:
        self.ids, self.cache = [], None


def showing(
    stream: TextStream, tokenizer: Tokenizer, write: Write
) -> Callable[[torch.Tensor], None]:
    """What writes each new token of a single row as text."""

    def show(column: torch.Tensor) -> None:
        token = int(column[0])
        if token != tokenizer.end:
            write(stream.push(token))

    return show


def stops(tokenizer: Tokenizer) -> list[int]:
    return [] if tokenizer.end is None else [tokenizer.end]


def device_of(model: Model) -> torch.device:
    return next(model.parameters()).device
