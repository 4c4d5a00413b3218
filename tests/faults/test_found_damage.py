"""Finished runs: damage is refused with the file's name, leftovers go, read-only is enough."""

import json
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import CPU, make_config, make_images, train_run

from retention_lib import data, lock, paths, study
from retention_lib.rundir import RunDir
from retention_lib.traces import Traces

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["retention_lib.study"])
CONFIG = make_config(dataset="octdl", epochs=1, warmup_epochs=1)
EPOCH = "trace/epoch=001.parquet"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    images = make_images(n_train=40, n_val=8)
    return train_run(tmp_path_factory.mktemp("runs") / "key", CONFIG, images).folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "key"))


@pytest.mark.parametrize("name", [EPOCH, "samples.parquet"])
def test_no_flipped_bit_is_ever_read(copy, name):
    content = (copy / name).read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 60):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        (copy / name).write_bytes(changed)
        # A changed length or id of a sample is found by what it contradicts, all else by checksum.
        with pytest.raises(ValueError, match=rf"{copy / name} (is damaged|has \d+ rows)"):
            Traces.from_runs([copy])
    (copy / name).write_bytes(content)
    assert len(Traces.from_runs([copy]).runs) == 1


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b'{"epoch": 1}\n', b"PAR1" + bytes(90) + b"PAR1"]
)
@pytest.mark.parametrize("name", [EPOCH, "samples.parquet", "done.json", "config.json"])
def test_a_file_that_is_not_what_it_says_is_named(copy, name, content):
    if name.endswith("json"):
        content = content.replace(b"{", b"[{")
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{copy / name} is damaged .*Put back a copy"):
        Traces.from_runs([copy])


def test_epochs_that_changed_places_are_refused(copy):
    other = copy / "trace/epoch=000.parquet"
    (copy / EPOCH).write_bytes(other.read_bytes())  # a whole file with the right number of rows
    with pytest.raises(ValueError, match=rf"{copy / EPOCH} is damaged \(its checksum is"):
        Traces.from_runs([copy])


def test_another_table_is_refused_without_checksums_too(copy):
    done = json.loads((copy / "done.json").read_text())
    del done["checksums"]  # as runs were that are older than they
    (copy / "done.json").write_text(json.dumps(done))
    assert len(Traces.from_runs([copy]).runs) == 1
    shutil.copy(copy / "samples.parquet", copy / EPOCH)
    with pytest.raises(ValueError, match=rf"{copy / EPOCH} has columns .*expected .*clean_loss"):
        Traces.from_runs([copy])


def test_a_broken_line_of_metrics_is_named_and_harms_no_trace(copy):
    path = copy / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged in line 2"):
        _ = RunDir(copy).metrics
    assert len(Traces.from_runs([copy]).runs) == 1


@pytest.mark.usefixtures("one_thread")
def test_what_a_kill_left_in_a_done_run_goes_when_it_is_found(tiny_data):
    (folder,) = study.capture_or_load([CONFIG], CPU, print)
    before = sorted(folder.rglob("*"))
    left = [folder / n for n in ("checkpoint.pt", "done.json.tmp", "lock", "trace/a.parquet.tmp")]
    for file in left:
        file.write_bytes(b"left")
    with lock.hold(folder / "lock"):  # a process that still finishes it does that itself
        assert study.capture_or_load([CONFIG], CPU, print) == [folder]
        assert all(file.exists() for file in left)
        (folder / "checkpoint.pt").write_bytes(b"left")
    assert study.capture_or_load([CONFIG], CPU, print) == [folder]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_never_began_leaves_no_folder(tiny_data, monkeypatch):
    def no_images(config):
        raise FileNotFoundError("no images")

    monkeypatch.setattr(data, "load", no_images)
    with pytest.raises(FileNotFoundError, match="no images"):
        study.capture_or_load([CONFIG], CPU, print)
    assert [*paths.runs().iterdir()] == []


def as_reader(home: Path, seed: int, answer) -> None:
    """Work in a folder of somebody else, without the rights of root."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    os.environ["RETENTION_HOME"] = str(home)
    images = make_images(n_train=40, n_val=8)
    data.load, data.identity = lambda config: images, lambda config: images.identity
    try:
        folders = study.capture_or_load([CONFIG.replace(seed=seed)], CPU, print)
        answer.send(f"{len(Traces.from_runs(folders).runs)} run of {folders[0].parent.name}")
    except OSError as error:
        answer.send(f"{type(error).__name__}: {error}")


def ask_reader(home: Path, seed: int) -> str:
    """What a process says that may read but not write."""
    hears, tells = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=as_reader, args=(home, seed, tells))
    process.start()
    said = hears.recv() if hears.poll(30) else "nothing"
    process.join()
    return said


@pytest.fixture
def read_only(finished):
    """A home with a published run, which can be read only."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        home = Path(folder)
        key = CONFIG.key(make_images(n_train=40, n_val=8).identity)
        published = Path(shutil.copytree(finished, home / "results" / key))
        header = json.loads((published / "config.json").read_text())
        (published / "config.json").write_text(json.dumps({**header, "weights": "random"}))
        (home / "runs").mkdir()
        for path in [*home.rglob("*"), home]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield home
        for path in [home, *home.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_published_runs_are_read_without_writing(read_only):
    before = {f: f.stat().st_mtime_ns for f in read_only.rglob("*")}
    assert ask_reader(read_only, seed=0) == "1 run of results"
    assert {f: f.stat().st_mtime_ns for f in read_only.rglob("*")} == before


def test_capturing_into_a_read_only_folder_says_what_to_do(read_only):
    said = ask_reader(read_only, seed=1)
    assert said.startswith("PermissionError: [Errno 13] Permission denied (could not be written; ")
    assert "let RETENTION_HOME" in said and str(read_only / "runs") in said
