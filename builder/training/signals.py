"""Being asked to stop: what runs is finished, and what was learnt is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from builder.errors import Stopped

CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}


class Stop:
    """Which signal has come, if one has."""

    asked: signal.Signals | None = None
    _at_once = ""  # what a signal is answered with, while there is nothing to save

    def error(self, message: str, help: str) -> Stopped:
        assert self.asked is not None
        return Stopped("stopped", f"{self.asked.name}: {message}", help, CODES[self.asked])

    @contextmanager
    def before_anything(self, message: str = "stopped before the first step") -> Iterator[None]:
        """While there is nothing to save, a signal stops at once.  Stopped is raised."""
        try:
            self._at_once = message
            if self.asked:
                raise self._now()
            yield
        finally:
            self._at_once = ""

    def _now(self) -> Stopped:
        return self.error(self._at_once, "the same command starts it again")

    def note(self, number: int, frame: FrameType | None) -> None:
        """What comes of a signal; after the first, Ctrl-C ends the process wherever it is."""
        self.asked = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._at_once:
            raise self._now()


@contextmanager
def stopping() -> Iterator[Stop]:
    """Note the first signal; a second Ctrl-C stops at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.getsignal(number) for number in CODES}
    for number in CODES:
        signal.signal(number, stop.note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
