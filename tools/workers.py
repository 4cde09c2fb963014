"""Chapters side by side, each in a process of its own, here or elsewhere; an interrupt ends all of them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
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


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """The workers of a Dask scheduler, wherever they are: what one of them loses by its end, another does.

    Each has this folder, at the same place, and one thread, as a notebook's kernel starts in its chapter's folder;
    the scheduler and each of them have ``tools`` on their path.

    Parameters
    ----------
    address : str
        Such as ``tcp://192.168.0.1:8786``.

    Yields
    ------
    Executor

    Raises
    ------
    SystemExit
        If Dask is not installed, or no scheduler answers; on an interrupt, when the tasks are cancelled.
    """
    try:
        from distributed import Client

        client = Client(address, timeout=10)
    except ImportError:
        raise SystemExit("--dask needs a package: pip install distributed") from None
    except (OSError, ValueError):
        raise SystemExit(f"--dask must be the address of a scheduler that runs, got {address}") from None
    with client, client.get_executor(pure=False) as executor:
        try:
            yield executor
        except KeyboardInterrupt:
            executor.shutdown(wait=False)
            raise SystemExit("stopped; what was finished before is kept") from None
