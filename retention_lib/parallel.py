"""Runs side by side on one machine's cores, each with its share of the threads.

Small networks do not fill two cores: two processes of one thread train two of them faster than one
process of two threads trains one after the other.

No process outlives the one that started it: each watches a pipe that closes when that one ends,
however it ends, and leaves at once. What it was writing then stays under a temporary name.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import socket
import threading
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing import connection
from multiprocessing.managers import SyncManager

import torch

from retention_lib.lock import keep_to_parent
from retention_lib.train import sigterm_noted

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
        Importable by name; `send(message)` reaches `on_message` in this process. It gets the
        SIGTERM and the interrupts of this process, to stop where it likes.
    workers : int
        Processes; each computes with `cores() // workers` threads.

    Raises
    ------
    Exception
        The first that a job raised, once the jobs that were running have ended.
    SystemExit
        With status 143 after a SIGTERM, once the jobs that were running have stopped. A second
        SIGTERM ends all processes at once.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit locked thread pools
    threads = max(1, cores() // workers)
    hears, tells = context.Pipe(duplex=False)
    manager = SyncManager(ctx=context)
    manager.start(keep_to_parent)  # passes messages; imports no torch
    with manager, sigterm_noted() as stopped:
        messages = manager.Queue()
        with ProcessPoolExecutor(workers, context, _begin, (hears, threads)) as pool:
            waiting = {pool.submit(_call, job, item, messages) for item in items}
            try:
                _attend(waiting, messages, on_message, stopped)
            except BaseException as error:
                if not isinstance(error, Exception):
                    tells.send("stop")
                pool.shutdown(wait=True, cancel_futures=True)
                _deliver(messages, on_message)
                raise


def _attend(waiting: set, messages, on_message, stopped: list) -> None:
    """Pass messages on until all jobs are done, one has failed or a SIGTERM has come."""
    while waiting:
        if stopped:
            raise SystemExit(128 + signal.SIGTERM)
        done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
        _deliver(messages, on_message)
        for future in done:
            if future.exception() is not None:
                raise future.exception()


class _Worker:
    """What a worker process knows of itself: whether it has a job, and is to take no other."""

    busy = stopping = False


def _begin(hears, threads: int) -> None:
    """Set up a worker process: its threads, and what it does when it is to stop."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, _stop)
    # Whoever ends a whole process group sends the worker a SIGTERM of its own: the bytes on this
    # socket tell, so that the parent's is not taken for a second one, which means "at once".
    signals, writes = socket.socketpair()
    writes.setblocking(False)
    signal.set_wakeup_fd(writes.fileno())
    watch = threading.Thread(target=_watch, args=(hears, signals, writes), daemon=True)
    watch.start()


def _stop(number, frame) -> None:
    """On a SIGTERM outside of training: leave the job, and take no other."""
    _Worker.stopping = True
    if _Worker.busy:
        raise SystemExit(128 + signal.SIGTERM)


def _watch(hears, signals, writes) -> None:
    """Pass the parent's wish to stop on as a SIGTERM, and leave when the parent is gone."""
    parent, heard = multiprocessing.parent_process().sentinel, [signals, hears]
    while True:
        ready = connection.wait([parent, *heard])
        if parent in ready:
            os._exit(1)
        if signals in ready and signal.SIGTERM in signals.recv(4096):
            _Worker.stopping, heard = True, []
        elif hears in ready:
            _Worker.stopping, heard = True, []
            signal.raise_signal(signal.SIGTERM)  # handled by the main thread, as one from outside


def _call(job, item, messages) -> None:
    _Worker.busy = True
    try:
        if _Worker.stopping:
            raise SystemExit(128 + signal.SIGTERM)
        job(item, messages.put)
    finally:
        _Worker.busy = False


def _deliver(messages, on_message) -> None:
    while True:
        try:
            message = messages.get_nowait()
        except queue.Empty:
            return
        on_message(message)
