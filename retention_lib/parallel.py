"""Runs side by side on one machine's cores, each with its share of the threads.

Small networks do not fill two cores: two processes of one thread train two of them faster than one
process of two threads trains one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait

import torch

#: More processes than this would crowd a large machine's memory rather than speed it up.
MOST_WORKERS = 4


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def default_workers(device: torch.device) -> int:
    """One process per core up to `MOST_WORKERS` on a CPU, one on a GPU."""
    return min(cores(), MOST_WORKERS) if device.type == "cpu" else 1


def in_processes(job, items: list, workers: int, on_message) -> None:
    """Call `job(item, send)` for every item, `workers` at a time, each in a process of its own.

    Parameters
    ----------
    job : callable
        Importable by name; `send(message)` reaches `on_message` in this process.
    workers : int
        Processes; each computes with `cores() // workers` threads.

    Raises
    ------
    Exception
        The first that a job raised, once the jobs that were running have ended.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit locked thread pools
    threads = max(1, cores() // workers)
    with context.Manager() as manager, ProcessPoolExecutor(workers, context) as pool:
        messages = manager.Queue()
        waiting = {pool.submit(_call, job, item, threads, messages) for item in items}
        while waiting:
            done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
            _deliver(messages, on_message)
            for future in done:
                if future.exception() is not None:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise future.exception()
        _deliver(messages, on_message)


def _call(job, item, threads: int, messages) -> None:
    torch.set_num_threads(threads)
    job(item, messages.put)


def _deliver(messages, on_message) -> None:
    while True:
        try:
            message = messages.get_nowait()
        except queue.Empty:
            return
        on_message(message)
