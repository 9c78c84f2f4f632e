"""Work in forked processes: what is slow to import is imported once, and each forgets the rest."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def in_children(
    tasks: Iterable[Task], work: Callable[[Task], Answer], at_once: int, limit_s: float
) -> Iterator[tuple[Task, Answer | None, float]]:
    """Each task with what ``work`` answers, and the seconds it took, as they come.

    The answer is None where the process died, or was ended because it took ``limit_s``.
    """
    context = multiprocessing.get_context("fork")
    left, running = list(tasks)[::-1], {}
    while left or running:
        while left and len(running) < at_once:
            task = left.pop()
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_answer, args=(work, task, theirs))
            child.start()
            theirs.close()
            running[ours] = task, child, time.monotonic()
        for pipe in wait(list(running), timeout=1.0):
            task, child, started = running.pop(pipe)
            try:
                answer = pipe.recv()
            except EOFError:
                answer = None
            child.join()
            yield task, answer, time.monotonic() - started
        for _, child, started in running.values():
            if time.monotonic() - started > limit_s:
                child.kill()  # its pipe ends, and it is taken for dead


def _answer(work: Callable[[Task], Answer], task: Task, pipe: Connection) -> None:
    with open(os.devnull, "w") as nowhere:  # what tests print is of no use here
        sys.stdout = sys.stderr = nowhere
        pipe.send(work(task))
        pipe.close()
        os._exit(0)  # whatever the tests have registered for the end is theirs
