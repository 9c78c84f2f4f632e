"""The work that we and others are set: a model, and what is done with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

TRAINED = ("ours",)
DECODED = ("ours", "ours, compiled", "ours, int8")
PEERS = ("transformers", "litgpt", "x-transformers")


@dataclass(frozen=True)
class Case:
    """A model in fp32, with learned positions or rotary ones, and its work.

    It is to ``train`` a step of ``batch`` texts of ``length`` tokens, ``decode`` so many ``new``
    ones after each, greedily, ``prefill`` a cache, and give the logits of the last, or ``start``: a
    process's way to the end of its first step of training.
    """

    name: str
    work: Literal["train", "decode", "prefill", "start"]
    kind: Literal["gpt", "rotary"]
    layers: int
    dim: int
    heads: int
    vocab: int
    length: int
    batch: int = 1
    kv_heads: int | None = None
    ff: int | None = None
    window: int | None = None
    new: int = 0
    ours: tuple[str, ...] = TRAINED  # the ways that are measured

    @property
    def context(self) -> int:
        return self.length + self.new

    @property
    def tokens(self) -> int:
        """What a step gives, or reads."""
        return self.batch * (self.new or self.length)

    @property
    def story(self) -> str:
        """In a line."""
        sizes = f"{self.layers} layers, dim {self.dim}, {self.heads} heads"
        sizes += f" ({self.kv_heads} of keys)" if self.kv_heads else ""
        sizes += f", ff {self.ff}" if self.ff else ""
        sizes += f", vocab {self.vocab}, batch {self.batch}"
        model = f"{ {'gpt': 'GPT-2', 'rotary': 'LLaMA'}[self.kind] }'s kind, {sizes}"
        window = f" in a window of {self.window}" if self.window else ""
        done = {
            "train": f"train, {self.length} tokens a text",
            "decode": f"{self.new} tokens after {self.length}, greedily",
            "prefill": f"read {self.length} tokens{window}",
            "start": "from the start of a process to the end of its first step",
        }
        return f"{done[self.work]}; {model}"

    @property
    def page(self) -> dict[str, Any]:
        """The model as a recipe."""
        sizes = {"dim": self.dim, "heads": self.heads, "vocab": self.vocab, "context": self.context}
        train = {"batch": self.batch, "length": self.length, "lr": 1e-3}
        gpt = self.kind == "gpt"
        attention: dict[str, Any] = {"position": "rope"}
        attention = {"bias": True, "out_bias": True} if gpt else attention
        attention |= {"kv_heads": self.kv_heads} if self.kv_heads else {}
        attention |= {"mask": {"sliding_window": self.window}} if self.window else {}
        norm, ff = ("layernorm", "mlp") if gpt else ("rmsnorm", "glu")
        inside = {"act": "gelu_tanh"} if gpt else {"ff": self.ff}
        layer = [{"residual": [norm, {"attention": attention}]}, {"residual": [norm, {ff: inside}]}]
        first = ["token_embedding", "learned_positions"] if gpt else ["token_embedding"]
        head = {"lm_head": {"tie": True}} if gpt else "lm_head"
        model = [*first, {"repeat": self.layers, "pattern": ["layer"]}, norm, head]
        blocks = {"layer": layer}
        return {"recipe": 1, "dims": sizes, "blocks": blocks, "model": model, "train": train}

    @property
    def given(self) -> dict[str, Any]:
        """All that a contender is told."""
        return asdict(self) | {"context": self.context, "page": self.page}


SMALL: dict[str, Any] = {"kind": "gpt", "layers": 4, "dim": 128, "heads": 4, "vocab": 65}
SMALL |= {"length": 64, "batch": 12}
STORIES: dict[str, Any] = {"kind": "rotary", "layers": 6, "dim": 288, "heads": 6, "ff": 768}
DECODE: dict[str, Any] = {"work": "decode", "ours": DECODED, "length": 32}
SMOL: dict[str, Any] = {"kind": "rotary", "layers": 30, "dim": 576, "heads": 9, "kv_heads": 3}
CASES = {
    case.name: case
    for case in (
        Case("T1", "train", **SMALL),
        Case("T2", "train", **STORIES, vocab=4096, length=256, batch=8,
             ours=("ours", "ours, compiled")),
        Case("T3", "train", kind="gpt", layers=6, dim=384, heads=6, vocab=50257, length=256,
             batch=16),
        Case("G1", **DECODE, **STORIES, vocab=32000, new=224),
        Case("G2", **DECODE, **SMOL, ff=1536, vocab=49152, new=128),
        Case("G3", **DECODE, **STORIES, vocab=32000, new=224, batch=16),
        Case("G4", "prefill", **STORIES, vocab=4096, length=1024, window=256),
        Case("S1", "start", **SMALL, ours=("import torch", "ours")),
    )
}  # fmt: skip
