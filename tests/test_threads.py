"""Work on several threads gives what one thread gives, in the same order."""

import threading
import time

import numpy as np
import pytest
import torch

from retention_lib import threads
from retention_lib.intervals import bootstrap


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_keep_the_order_of_the_items(two_threads):
    def late_first(i):
        time.sleep(0.02 if i == 0 else 0)
        return i, threading.get_ident()

    found = threads.each(late_first, range(20), threads.LEAST)
    assert [i for i, _ in found] == list(range(20))
    assert threading.get_ident() not in {thread for _, thread in found}


def test_items_are_taken_as_they_are_needed(two_threads):
    running, most = [], []

    def items():
        for i in range(12):
            running.append(i)
            most.append(len(running))
            yield i

    def finish(i):
        time.sleep(0.01)
        running.remove(i)

    threads.each(finish, items(), threads.LEAST)
    assert max(most) <= 4


def test_small_items_stay_in_this_thread(two_threads):
    found = threads.each(lambda _: threading.get_ident(), range(3), threads.LEAST - 1)
    assert set(found) == {threading.get_ident()}


def test_warnings_switched_off_outside_stay_off_and_errors_come_through(two_threads):
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        threads.each(lambda x: 1 / np.float64(x), [1, 0], threads.LEAST)


def test_a_bootstrap_does_not_depend_on_threads(two_threads, monkeypatch):
    x = np.random.default_rng(0).normal(size=300)

    def interval():
        where = (np.arange(300), np.arange(300) % 3, np.random.default_rng(1))
        return bootstrap(lambda rows: x[rows].mean(), *where, draws=30)

    alone = interval()
    monkeypatch.setattr(threads, "LEAST", 1)
    assert interval().equals(alone)
