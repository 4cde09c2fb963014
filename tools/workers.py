"""Chapters side by side, each in a process of its own; an interrupt ends all of them, in one line."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

if multiprocessing.current_process().name != "MainProcess":  # parent_process() is not known yet at this point
    # Ctrl-C reaches a terminal's every process. A worker imports this with its task, and leaves it to its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that each run one task, as a notebook's kernel starts in its chapter's folder.

    Parameters
    ----------
    jobs : int
        How many at a time.

    Yields
    ------
    ProcessPoolExecutor

    Raises
    ------
    SystemExit
        On an interrupt, when the processes have ended.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as executor:
        try:
            yield executor
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.kill()  # its kernel sees that its parent is gone, and goes; told to end, it would talk
            raise SystemExit("stopped; what was finished before is kept") from None
