"""Runs of a moment, for tests that kill, stop and compare them."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from builder import load_recipe
from builder.training import checkpoints, disk, loop
from builder.training.runs import Run, open_run
from tests.crashes import OPERATIONS

WORDS = """to be or not that is the question whether nobler in mind suffer
быть или не быть вот в чём вопрос""".split()  # noqa: SIM905  # as a list it fills a screen
TIMES = ("tokens_per_s", "seconds")
PAGE = {
    "recipe": 1,
    "name": "tiny",
    "dims": {"dim": 16, "heads": 2, "ff": 32, "vocab": 300, "context": 24},
    "blocks": {
        "decoder": [
            {"residual": ["rmsnorm", {"attention": {"position": "rope", "dropout": 0.1}}]},
            {"residual": ["rmsnorm", "glu", {"dropout": 0.1}]},
        ]
    },
    "model": ["token_embedding", {"dropout": 0.1}, {"repeat": 2, "block": "decoder"}, "lm_head"],
    "tokenizer": "bpe",
    "data": {"text": "text.txt"},
}
TRAIN = {"steps": 9, "batch": 4, "lr": 0.01, "eval_every": 4, "checkpoint_every": 3}
TRAIN |= {"sample_tokens": 4}


def text_of(seed: int, words: int = 3000) -> str:
    dice = random.Random(seed)
    return "".join(dice.choice(WORDS) + dice.choice("  \n") for _ in range(words))


def recipe_of(page: dict[str, Any] | None = None, **train: Any):
    given = {name: "none" if value is None else value for name, value in train.items()}
    return load_recipe({**PAGE, **(page or {}), "train": {**TRAIN, **given}})


def story(run: Run) -> list[dict[str, Any]]:
    """All that was logged, but for times."""
    return [{k: v for k, v in event.items() if k not in TIMES} for event in run.metrics()]


def remembered(run: Run) -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint."""
    last = run.latest()
    names = ("model", "training", "average")
    return {f"{n}:{key}": value for n in names for key, value in checkpoints.each(last, n)}


def assert_same(run: Run, other: Run) -> None:
    """Equal to the bit: weights, what optimizers remember, and all that was logged."""
    ours, theirs = remembered(run), remembered(other)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert story(run) == story(other)
    samples = [(one.path / "samples.txt").read_bytes() for one in (run, other)]
    assert samples[0] == samples[1]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(act: Callable[[], object]) -> int:
    """Run something in a process of its own, and wait: its exit code, or minus its signal."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass
class Case:
    """A run that is killed, perhaps twice: drawn by number."""

    number: int
    train: dict[str, Any] = field(default_factory=dict)
    step: int | None = None  # killed before this one is taken
    operation: int | None = None  # or at this operation on the disk
    again: int | None = None  # and, resumed, before this one

    @staticmethod
    def drawn(number: int) -> Case:
        dice = random.Random(number)
        steps = dice.randint(4, 12)
        train = {
            "steps": steps,
            "batch": dice.randint(3, 6),
            "seed": dice.randint(0, 99),
            "accumulate": dice.randint(1, 3),
            "checkpoint_every": dice.randint(1, 5),
            "keep": dice.randint(1, 3),
            "eval_every": dice.randint(2, 6),
            "workers": dice.choice([0, 0, 1, 2, 3]),
            "documents": dice.choice(["joined", "apart"]),
            "recompute": dice.random() < 0.3,
            "ema": dice.choice([None, 0.9]),
            "loss_chunk": dice.choice([None, 16]),
            "optimizer": dice.choice(["adamw", "adamw", "muon", "lion"]),
            "schedule": dice.choice(["cosine", "wsd", "linear", "constant"]),
        }
        case = Case(number, train)
        if dice.random() < 0.5:
            case.step = dice.randrange(steps)
        else:
            case.operation = dice.randint(12, 40)
        if dice.random() < 0.3:
            case.again = dice.randrange(steps)
        return case

    def dying(self, step: int | None, operation: int | None, act: Callable[[], object]) -> int:
        """Do something in a child that is killed at a step, or at an operation on the disk."""
        take_step, count = loop.take_step, [0]

        def stepping(training, index, batch):
            if index == step:
                kill()
            return take_step(training, index, batch)

        def counted(real):
            def operate(*given):
                if count[0] == operation:
                    kill()
                count[0] += 1
                return real(*given)

            return operate

        def dies():
            watched = {name: counted(getattr(disk, name)) for name in OPERATIONS}
            with patch.object(loop, "take_step", stepping), patch.multiple(disk, **watched):
                act()

        return in_child(dies)

    def run(self, whole: Path, killed: Path) -> int:
        """Kill, resume and compare; how often it was killed."""
        recipe = recipe_of(**self.train)
        kills = self.dying(self.step, self.operation, lambda: loop.train(recipe, killed)) != 0
        if not killed.exists():  # it was killed before there was a run
            return int(kills) + self.same(loop.train(recipe, killed), whole)
        if self.again is not None:
            code = self.dying(self.again, None, lambda: loop.resume(open_run(killed)))
            kills += code != 0
        return int(kills) + self.same(loop.resume(open_run(killed)), whole)

    def same(self, run: Run, whole: Path) -> int:
        assert_same(run, loop.train(recipe_of(**self.train), whole))
        return 0
