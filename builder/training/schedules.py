"""Learning-rate schedules: pure functions of the step, giving a factor on ``lr``.

``warmup``, ``decay`` are shares of the run: a paper's 2,000 steps of 600,000 are ``warmup: 2000 /
600000``.

"""

from __future__ import annotations

import math

from blocks.registry import register


@register("constant", kind="schedule")
class Constant:
    """The same rate throughout, after a linear warm-up."""

    def __init__(self, *, warmup: float = 0.05) -> None:
        self.warmup = warmup

    def __call__(self, step: int, steps: int) -> float:
        return warm(step, steps, self.warmup)


@register("linear", kind="schedule")
class Linear:
    """A linear warm-up, then a line down to ``floor`` at the last step.

    Source: Devlin et al. 2018, arXiv:1810.04805, appendix A.2.
    """

    def __init__(self, *, warmup: float = 0.05, floor: float = 0.0) -> None:
        self.warmup, self.floor = warmup, floor

    def __call__(self, step: int, steps: int) -> float:
        left = 1 - done(step, steps, since=self.warmup)
        return warm(step, steps, self.warmup) * (self.floor + (1 - self.floor) * left)


@register("cosine", kind="schedule")
class Cosine:
    """A linear warm-up, then half a cosine down to ``floor`` at the last step.

    Source: Loshchilov & Hutter 2016, arXiv:1608.03983, without restarts.
    """

    def __init__(self, *, warmup: float = 0.05, floor: float = 0.1) -> None:
        self.warmup, self.floor = warmup, floor

    def __call__(self, step: int, steps: int) -> float:
        left = (1 + math.cos(math.pi * done(step, steps, since=self.warmup))) / 2
        return warm(step, steps, self.warmup) * (self.floor + (1 - self.floor) * left)


@register("wsd", kind="schedule")
class Wsd:
    """Warm-up, stable, decay: a constant rate, then a line down to ``floor`` over the last
    ``decay`` of the run.

    Source: Hu et al. 2024 (MiniCPM), arXiv:2404.06395, section 4.
    """

    def __init__(self, *, warmup: float = 0.05, decay: float = 0.2, floor: float = 0.0) -> None:
        self.warmup, self.decay, self.floor = warmup, decay, floor

    def __call__(self, step: int, steps: int) -> float:
        left = 1 - done(step, steps, since=1 - self.decay)
        return warm(step, steps, self.warmup) * (self.floor + (1 - self.floor) * left)


def warm(step: int, steps: int, share: float) -> float:
    """From just above 0 to 1 over the first ``share`` of the run."""
    return min(1.0, (step + 1) / max(1, round(share * steps)))


def done(step: int, steps: int, since: float) -> float:
    """How much of the run from ``since`` on lies behind: 0 before, 1 at the last step."""
    start = round(since * steps)
    return min(1.0, max(0.0, (step - start) / max(1, steps - 1 - start)))
