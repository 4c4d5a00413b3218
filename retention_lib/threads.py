"""One function over many independent inputs, on as many threads as the user grants, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import torch

#: Below so many entries an item takes less time than handing it to a thread.
LEAST = 100_000


def each(function: Callable, items: Iterable, entries: int) -> list:
    """`[function(item) for item in items]`, several at a time where that pays.

    NumPy lets other threads run during operations on long arrays. Items are taken from their
    iterator in this thread, one after the other and only as they are needed: random draws come in
    the same order, and few inputs are held at once. The result does not depend on threads.

    Parameters
    ----------
    function : callable
        Must not change what other calls read.
    items : iterable
    entries : int
        Size of the arrays that one call works on; below `LEAST` there are no threads.

    Returns
    -------
    list
        In the order of `items`. The first exception is raised.

    Examples
    --------
    >>> each(abs, [-1, 2], entries=2)
    [1, 2]
    """
    workers = torch.get_num_threads()
    if workers < 2 or entries < LEAST:
        return [function(item) for item in items]
    found, running = [], deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            running.append(pool.submit(copy_context().run, function, item))
            if len(running) > workers:
                found.append(running.popleft().result())
        found += [one.result() for one in running]
    return found
