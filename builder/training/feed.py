"""The batches of the steps to come, read ahead if the recipe says so."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from builder.training.corpus import Batch, Corpus
from builder.training.samples import Samples
from builder.training.settings import Train
from builder.training.step import samples_of
from builder.training.world import World


@dataclass(frozen=True)
class Steps(Dataset[Batch]):
    """Step -> one process's part of its batch: a pure function, whoever asks, in whatever order."""

    corpus: Corpus | Samples
    settings: Train
    world: World

    def __getitem__(self, index: int) -> Batch:
        return self.corpus.batch(self.settings.seed, samples_of(self.settings, index, self.world))


def batches(
    corpus: Corpus | Samples, settings: Train, world: World, start: int
) -> Iterator[tuple[int, Batch]]:
    """Each step from ``start`` on with its batch; ``workers`` processes read them ahead."""
    steps = range(start, settings.steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more workers than cores, which the recipe asks for
        loader = DataLoader(
            Steps(corpus, settings, world),
            batch_size=None,
            sampler=steps,
            num_workers=min(settings.workers, len(steps)),
            worker_init_fn=leave_signals,
        )
        return zip(steps, loader, strict=True)


def leave_signals(worker: int) -> None:
    """A signal to the whole group is for the process that trains; its end is the workers' too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
