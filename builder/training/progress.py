"""What a run shows on the terminal: one line rewritten there, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from builder.training.step import Step

BETWEEN_LINES_S = 10.0
BETWEEN_REWRITES_S = 0.1
CLEAR = "\r\033[K"


@dataclass
class Progress:
    """Told of each step; ``rate`` is in tokens a second, of the training steps alone."""

    steps: int
    step_tokens: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    quiet: bool = False
    begun: float = 0.0  # seconds of training before this process
    _all: float = 0.0
    _spent: float = 0.0
    _seen: int = 0
    _shown: float = float("-inf")

    def timed(self, seconds: float) -> None:
        """A step took so long.  The first is left out, for it warms up, until there are others."""
        self._all += seconds
        self._spent = seconds if self._seen <= 1 else self._spent + seconds
        self._seen += 1

    @property
    def seconds(self) -> float:
        """Of all steps so far."""
        return self.begun + self._all

    @property
    def rate(self) -> float:
        return self.step_tokens * max(self._seen - 1, 1) / self._spent if self._spent else 0.0

    def show(self, step: Step) -> None:
        on_terminal, now = self.stream.isatty(), self.clock()
        if self.quiet or (
            now - self._shown < (BETWEEN_REWRITES_S if on_terminal else BETWEEN_LINES_S)
            and step.number < self.steps
        ):
            return
        self._shown = now
        before, after = (CLEAR, "") if on_terminal else ("", "\n")
        self.stream.write(before + self.line(step) + after)
        self.stream.flush()

    def line(self, step: Step) -> str:
        left = (self.steps - step.number) * self.step_tokens / self.rate if self.rate else 0.0
        return (
            f"step {step.number:>{len(str(self.steps))}}/{self.steps}"
            f"  loss {step.loss:.3f}  lr {step.lr:.2e}"
            f"  {self.rate:,.0f} tokens/s  {duration(left)} left"
        )

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        self.stream.write((CLEAR if self.stream.isatty() else "") + text + "\n")
        self.stream.flush()


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
