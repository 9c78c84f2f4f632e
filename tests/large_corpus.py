"""Train on a text of gigabytes in bounded memory: ``python -m tests.large_corpus [GIGABYTES]``.

A text is generated, and a recipe trained on it for a few steps.  Tells the sizes, the seconds, and
the most memory that the process took.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from builder.training.loop import train
from builder.training.prepare import prepare_texts
from tests.tiny_runs import recipe_of

LINE = 12  # words


def generate(path: Path, size: int) -> None:
    """A text of so many bytes: lines of 5,000 words, the frequent ones often."""
    dice = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(dice.choices(letters, k=dice.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    with path.open("w") as file:
        while file.tell() < size:
            drawn = dice.choices(words, weights, k=20_000)
            lines = (" ".join(drawn[i : i + LINE]) for i in range(0, len(drawn), LINE))
            file.write("\n".join(lines) + "\n\n")


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(gigabytes: float) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        os.chdir(folder)
        generate(Path("text.txt"), int(gigabytes * 1e9))
        size = Path("text.txt").stat().st_size / 1e9
        dims = {"dim": 16, "heads": 2, "ff": 32, "vocab": 2048, "context": 64}
        recipe = recipe_of({"dims": dims})
        before, began = peak_gb(), time.monotonic()
        texts = prepare_texts(recipe, print, None, None)
        seconds, after = time.monotonic() - began, peak_gb()
        print(f"{size:.2f} GB of text, {len(texts.corpus.train.ids):,} tokens to train on")
        print(f"tokenizer and tokens: {seconds:.0f} s, {size * 1e3 / seconds:.1f} MB/s")
        print(f"memory: {before:.2f} GB before, {after:.2f} GB at the peak")
        train(recipe)
        print(f"after training: {peak_gb():.2f} GB at the peak")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
