"""Runs side by side: every item once, messages in order, the first error comes back."""

import os

import pytest
import torch

from retention_lib import config, parallel, study
from retention_lib.rundir import RunDir


def _square(item, send):
    send((item, item**2, torch.get_num_threads(), os.getpid()))


def _fail_on_three(item, send):
    if item == 3:
        raise ValueError("three is not to be had")
    send(item)


@pytest.mark.slow
def test_every_item_is_done_once_in_another_process():
    got = []
    parallel.in_processes(_square, [1, 2, 5], 2, got.append)
    assert sorted(m[:2] for m in got) == [(1, 1), (2, 4), (5, 25)]
    assert {m[2] for m in got} == {max(1, parallel.cores() // 2)}
    assert os.getpid() not in {m[3] for m in got}


@pytest.mark.slow
def test_the_error_of_a_job_comes_back():
    with pytest.raises(ValueError, match="three is not to be had"):
        parallel.in_processes(_fail_on_three, [1, 3], 2, lambda m: None)


def test_one_process_a_core_on_a_cpu_and_one_on_a_gpu():
    assert parallel.default_workers(torch.device("cpu")) == min(parallel.cores(), 4)
    assert parallel.default_workers(torch.device("cuda")) == 1


@pytest.mark.slow
def test_side_by_side_gives_the_traces_of_one_after_the_other(tmp_path, monkeypatch):
    base = {"n_train": 72, "input_size": 32, "epochs": 2, "warmup_epochs": 2}
    runs = [
        config.RunConfig("phantom_birds", arch="phantom_resnet18", seed=s, **base) for s in (0, 1)
    ]
    traces, lines, threads = {}, [], torch.get_num_threads()
    torch.set_num_threads(max(1, parallel.cores() // 2))  # as many as each of two workers has
    try:
        for workers in (1, 2):
            monkeypatch.setenv("RETENTION_HOME", str(tmp_path / str(workers)))
            cpu = torch.device("cpu")
            folders = study.capture_or_load(runs, cpu, lines.append, workers=workers)
            files = [RunDir(f).epoch_file(t) for f in folders for t in range(3)]
            traces[workers] = [file.read_bytes() for file in files]
    finally:
        torch.set_num_threads(threads)
    assert traces[1] == traces[2]
    assert sum("epoch " in line for line in lines) == 2 * 2 * 3
