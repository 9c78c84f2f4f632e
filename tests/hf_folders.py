"""What the bridge's tests share: the data folder, tiny models, and a recipe to spoil."""

from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("RECIPE_DATA", ROOT.parent / "shared" / "data"))
TOOL = DATA.parent / "tools" / "hf_tiny.py"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no data in {DATA}; RECIPE_DATA names it"
)
needs_tool = pytest.mark.skipif(not TOOL.is_file(), reason=f"no {TOOL} to make tiny models with")

LLAMA = """
recipe: 1
name: small
dims: {dim: 16, heads: 4, kv_heads: 2, ff: 24, vocab: 31, context: 32}
blocks:
  decoder:
    - residual: [rmsnorm, {attention: {position: rope}}]
    - residual: [rmsnorm, glu]
model:
  - token_embedding
  - {repeat: 3, block: decoder}
  - rmsnorm
  - lm_head
"""
GPT2 = """
recipe: 1
name: small
dims: {dim: 16, heads: 4, vocab: 31, context: 32}
blocks:
  decoder:
    - residual: [layernorm, {attention: {bias: true, out_bias: true}}]
    - residual: [layernorm, {mlp: {act: gelu_tanh}}]
model:
  - token_embedding
  - learned_positions
  - {repeat: 3, block: decoder}
  - layernorm
  - lm_head: {tie: true}
"""
GPT = """
recipe: 1
name: small
dims: {dim: 16, heads: 4, vocab: 31, context: 32}
blocks:
  decoder:
    - residual: [{attention: {bias: true, out_bias: true, dropout: 0.1}}, {dropout: 0.2}]
    - layernorm
    - residual: [{mlp: {act: gelu_tanh}}, {dropout: 0.2}]
    - layernorm
model: [token_embedding, learned_positions, {repeat: 2, block: decoder}, {lm_head: {tie: true}}]
"""
MISTRAL = LLAMA.replace("position: rope", "position: rope, mask: {sliding_window: 5}")
FITTING = {"llama": LLAMA, "gpt2": GPT2, "openai-gpt": GPT, "mistral": MISTRAL}


@cache
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hf_tiny", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.transformers.logging.set_verbosity_error()
    module.transformers.logging.disable_progress_bar()
    return module


def make_tiny(family: str, variant: int, folder: Path) -> Path:
    """A tiny random model of the library, with its reference logits."""
    if not folder.exists():
        tool().make(family, folder, variant=variant)
    return folder


def built(text: str, seed: int = 0, **how: Any) -> Any:
    """A model of random weights, none of which is at a value that hides a mistake."""
    import torch

    from builder import build, load_recipe

    model = build(load_recipe(text), seed=seed, **how).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return value


def written(folder: Path, config: dict[str, Any]) -> Path:
    """A folder that holds this config."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder
