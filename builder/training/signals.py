"""Being asked to stop: the step that runs is finished, and what was learnt is saved."""

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

    def error(self, message: str, help: str) -> Stopped:
        assert self.asked is not None
        return Stopped("stopped", f"{self.asked.name}: {message}", help, CODES[self.asked])


@contextmanager
def stopping() -> Iterator[Stop]:
    """Note the first signal; a second Ctrl-C stops at once, as it does outside."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.getsignal(number) for number in CODES}

    def note(number: int, frame: FrameType | None) -> None:
        stop.asked = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in CODES:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
