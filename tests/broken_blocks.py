"""Plug-ins of one block each: what an author may get wrong, and one that is right."""

from __future__ import annotations

import textwrap
from pathlib import Path

HEAD = """\
import torch
from torch import Tensor, nn

from blocks.call import Call
from blocks.parameter import constant
from blocks.registry import Act, maker, register

"""

HONEST = """\
@register("squash", kind="ffn")
class Squash(nn.Module):
    def __init__(self, dim: int, ff: int, *, act: Act = maker("silu"), first: float = 1.0) -> None:
        super().__init__()
        self.up = nn.Linear(dim, ff, bias=False)
        self.gain = constant(first, ff)
        self.down = nn.Linear(ff, dim, bias=False)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)) * self.gain)
"""

BROKEN = {
    "leaky": """\
        @register("leaky", kind="mixer")
        class Leaky(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.mean(1, keepdim=True).expand_as(x)
        """,
    "forgetful": """\
        @register("forgetful", kind="mixer")
        class Forgetful(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        """,
    "idle": """\
        @register("idle", kind="ffn")
        class Idle(nn.Module):
            def __init__(self, dim: int, *, twice: bool = False, half: bool = False) -> None:
                super().__init__()
                self.f, self.half = nn.Linear(dim, dim), half

            def forward(self, x: Tensor) -> Tensor:
                return self.f(x) / (2 if self.half else 1)
        """,
    "raising": """\
        @register("raising", kind="ffn")
        class Raising(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x @ torch.zeros(3, 3)
        """,
    "rooted": """\
        @register("rooted", kind="ffn")
        class Rooted(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x - 10).sqrt()
        """,
    "casting": """\
        @register("casting", kind="ffn")
        class Casting(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.float()
        """,
    "mixing": """\
        @register("mixing", kind="ffn")
        class Mixing(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x + x.mean(0, keepdim=True)
        """,
    "unlearnt": """\
        @register("unlearnt", kind="ffn")
        class Unlearnt(nn.Module):
            def __init__(self, dim: int) -> None:
                super().__init__()
                self.weight = constant(1.0, dim)

            def forward(self, x: Tensor) -> Tensor:
                return x * self.weight.detach()
        """,
}
LAW = {  # which of the laws each breaks, first or plainest
    "leaky": "is_causal_by_value",
    "forgetful": "cached_equals_full",
    "idle": "no_option_is_dead",
    "raising": "has_right_shapes",
    "rooted": "has_right_shapes",
    "casting": "dtypes_are_kept",
    "mixing": "rows_are_independent",
    "unlearnt": "every_parameter_learns",
}


def write_plugin(folder: Path, name: str) -> Path:
    """A plug-in's file: a broken block by its word, or the ``squash`` that is right."""
    text = HONEST if name == "squash" else textwrap.dedent(BROKEN[name])
    path = folder / f"{name}_block.py"
    path.write_text(HEAD + "\n" + text, encoding="utf-8")
    return path


def write_page(folder: Path, word: str) -> Path:
    """A recipe whose every layer ends with the word, at line 8, column 27."""
    path = folder / f"{word}.yaml"
    path.write_text(
        f"""\
recipe: 1
name: {word}
dims: {{dim: 32, heads: 4, ff: 48, vocab: 100, context: 64}}
blocks:
  decoder:
    - residual: [rmsnorm, {{attention: {{position: rope}}}}]
    - residual: [rmsnorm, glu]
    - residual: [rmsnorm, {word}]
model:
  - token_embedding
  - {{repeat: 2, block: decoder}}
  - rmsnorm
  - lm_head
""",
        encoding="utf-8",
    )
    return path
