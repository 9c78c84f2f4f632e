"""How much memory a large folder takes: ``python -m tests.streaming [GIGABYTES]``.

A sharded folder is generated, and read as it is and as bfloat16, each time in a process of its own,
whose peak is told beside the sizes of the model and of the largest shard.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

GB = 1_000_000_000
SHARD = 250_000_000
PAGE = """
recipe: 1
name: large
dims: {dim: 2048, heads: 16, ff: 5632, vocab: 8192, context: 256}
blocks:
  decoder:
    - residual: [rmsnorm, {attention: {position: rope}}]
    - residual: [rmsnorm, glu]
model: [token_embedding, {repeat: LAYERS, block: decoder}, rmsnorm, lm_head]
"""
LAYER = 4 * (4 * 2048**2 + 3 * 2048 * 5632)  # bytes


def generate(folder: Path, size: float) -> None:
    """A folder of LLaMA's, random numbers in shards, written tensor by tensor."""
    import torch

    from builder import build, load_recipe
    from hf_bridge.exporting import find_fit
    from hf_bridge.folder import CONFIG
    from hf_bridge.weights import table
    from hf_bridge.write_hf import write_json, write_weights

    text = PAGE.replace("LAYERS", str(round(size * GB / LAYER)))
    model = build(load_recipe(text), device="meta")
    ours = dict(model.named_parameters())
    fit = find_fit(model.recipe.graph, "llama")
    rows = table(fit.family, fit.imported.scope, model.recipe.graph, ours)
    tensors = (
        (theirs, torch.randn(layout.theirs(layout.parts(ours)).shape) / 45)
        for theirs, layout in rows.items()
    )
    folder.mkdir()
    write_weights(folder, tensors, SHARD)
    write_json(folder / CONFIG, fit.config)


def act(what: str, folder: Path) -> dict[str, int]:
    """What a process of its own does, and its memory before and at its peak."""
    import torch

    import hf_bridge
    import hf_bridge.importing  # what is loaded anyway

    before = peak()
    dtype = torch.bfloat16 if what == "as bfloat16" else None
    model, _ = hf_bridge.from_hf(folder, dtype=dtype)
    bytes = sum(parameter.nbytes for parameter in model.parameters())
    return {"model": bytes, "taken": peak() - before}


def peak() -> int:
    """The most bytes that this process has held; getrusage counts what its parent held too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measured(size: float) -> Iterator[tuple[str, dict[str, float]]]:
    """Of each way to read a folder of so many gigabytes: model, largest shard, what was taken."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "large"
        generate(folder, size)
        shard = max(path.stat().st_size for path in folder.glob("*.safetensors"))
        for what in ("as it is", "as bfloat16"):
            command = [sys.executable, "-m", "tests.streaming", what, str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = {"shard": shard, **json.loads(done.stdout)}
            yield what, {name: number / GB for name, number in found.items()}


def main(size: float = 2.0) -> None:
    for what, found in measured(size):
        told = ", ".join(f"{name} {number:.2f} GB" for name, number in found.items())
        print(f"read {what}: {told}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(act(sys.argv[1], Path(sys.argv[2]))))
    else:
        main(*map(float, sys.argv[1:]))
