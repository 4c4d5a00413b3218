"""Hostile files: none runs code, none writes outside its folder, each is named in the error."""

import io
import os
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_config, make_images, start_run

import retention_lib
from retention_lib import models, pretrain
from retention_lib.data import archive, decode, scan
from retention_lib.rundir import RunDir


class Intruder:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.fixture
def target(tmp_path):
    """What an intruder would make; it must not be there afterwards."""
    place = tmp_path / "intruded"
    pickle.loads(pickle.dumps(Intruder(place)))  # it works where pickles are opened
    place.rmdir()
    yield place
    assert not place.exists()


def test_a_checkpoint_with_code(tmp_path, target):
    run = start_run(tmp_path / "key", make_config(), make_images(8, 4))
    path = run.folder / "checkpoint.pt"
    torch.save({"epoch": 1, "model": Intruder(target)}, path)
    with pytest.raises(pickle.UnpicklingError, match=rf"{path} was not written .*; delete it"):
        run.resumable()


def test_a_bare_pickle_as_a_checkpoint_is_not_even_opened(tmp_path, target):
    run = start_run(tmp_path / "key", make_config(), make_images(8, 4))
    (run.folder / "checkpoint.pt").write_bytes(pickle.dumps(Intruder(target)))
    with pytest.raises(ValueError, match=r"checkpoint.pt is damaged"):
        run.load_checkpoint()
    with pytest.warns(UserWarning, match="starts again from epoch 0"):
        assert run.resumable() is None


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pretraining_checkpoint_with_code(tmp_path, target, zipped):
    path, student = tmp_path / "pretrain.pt", object.__new__(pretrain.Student)
    torch.save({"model": Intruder(target)}, path)
    if not zipped:
        path.write_bytes(pickle.dumps(Intruder(target)))
    with pytest.raises((ValueError, pickle.UnpicklingError), match=r"damaged; delete|[Ww]eights"):
        student.load(path)


def test_weights_with_code(tmp_path, target):
    for name in ("w.safetensors", "w.pt", "w.bin"):
        path = tmp_path / name
        torch.save({"fc.weight": Intruder(target)}, path)
        with pytest.raises(ValueError, match=rf"(?s){name}.* not a whole|must be .*got .*{name}"):
            models.build_model("resnet18", 2, 32, weights=str(path))


HEADER = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 1 << 60) + b"{}",  # a header longer than any file
        struct.pack("<Q", 8) + b"not json",
        struct.pack("<Q", 57) + HEADER % (9, 36) + bytes(8),  # data that is not there
        struct.pack("<Q", 57) + HEADER % (9, 99) + bytes(99),  # a shape that does not fit
    ],
)
def test_weights_with_a_broken_header(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} is not a whole safetensors file .*download"):
        models.build_model("phantom_resnet18", 2, 32, weights=str(path))


def test_a_cache_with_code(tmp_path, target):
    images = np.array([Intruder(target)], dtype=object)
    np.save(tmp_path / "k.npy", images, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"{tmp_path}/k.npy is damaged .*delete it to decode"):
        decode.decode([tmp_path / "a.png"], 8, tmp_path, "k")


@pytest.mark.parametrize("keep", [0, 40, 200])
def test_a_cache_that_was_cut(tmp_path, keep):
    np.save(tmp_path / "k.npy", np.zeros((1, 8, 8, 3), np.uint8))
    content = (tmp_path / "k.npy").read_bytes()
    (tmp_path / "k.npy").write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"k.npy is damaged .*delete it to decode again"):
        decode.decode([tmp_path / "a.png"], 8, tmp_path, "k")


def test_what_a_killed_decoding_left_goes(tmp_path):
    (tmp_path / "k.123.tmp").write_bytes(b"half")
    image = decode.Image.fromarray(np.zeros((9, 9, 3), np.uint8))
    image.save(tmp_path / "a.png")
    decode.decode([tmp_path / "a.png"], 8, tmp_path, "k")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.png", "k.npy"]


def png(width: int, height: int) -> bytes:
    """A PNG of that size, in a few bytes: its pixels are not there."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def test_an_image_that_is_a_bomb_is_left_out_with_the_reason(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000))  # 10 GB of pixels
    (reason,) = scan.scan(tmp_path, ["bomb.png"])["reason"]
    assert reason.startswith("broken image: DecompressionBombError: Image size (3600000000 pixels)")
    (black,), broken = decode.decode([tmp_path / "bomb.png"], 8, tmp_path / "cache", "k")
    assert not black.any() and "DecompressionBombError" in broken[0][1]


def hostile_tar(path: Path, *members) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, link in [("good.txt", tarfile.REGTYPE, ""), *members]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, 0 if link else 4
            tar.addfile(info, None if link else io.BytesIO(b"evil"))
    return path


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", tarfile.REGTYPE, "")],
        [("{outside}/evil", tarfile.REGTYPE, "")],
        [("door", tarfile.SYMTYPE, "{outside}"), ("door/evil", tarfile.REGTYPE, "")],
        [("door", tarfile.SYMTYPE, ".."), ("door/evil", tarfile.REGTYPE, "")],
        [("secret", tarfile.LNKTYPE, "{outside}/secret")],
        [("door", tarfile.SYMTYPE, "a"), ("a", tarfile.SYMTYPE, ".."), ("x", tarfile.LNKTYPE, "a")],
    ],
    ids=["up", "absolute", "through a link", "through a link up", "hard link", "chain"],
)
def test_a_tar_that_leaves_its_folder(tmp_path, members):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    members = [(n.format(outside=outside), k, v.format(outside=outside)) for n, k, v in members]
    path = hostile_tar(tmp_path / "x.tgz", *members)
    with pytest.raises(ValueError, match=r"x.tgz: refusing to extract '.*': "):
        archive.safe_extract(path, tmp_path / "in" / "here")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["outside", "x.tgz"]
    assert [f.name for f in outside.iterdir()] == ["secret"]


def test_a_zip_that_leaves_its_folder(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("good.txt", "good")
        zipped.writestr("../evil", "evil")
    with pytest.raises(ValueError, match=r"refusing to extract '../evil': it leaves the folder"):
        archive.safe_extract(path, tmp_path / "in")
    assert [f.name for f in tmp_path.iterdir()] == ["x.zip"]


def test_a_zip_that_is_a_bomb_is_refused_before_it_is_written(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for i in range(2000):
            zipped.writestr(f"{i}.bin", b"x")
    content, size = bytearray(path.read_bytes()), struct.pack("<I", 0xFFFFFFF0)
    for found in re.finditer(rb"PK\x01\x02", bytes(content)):  # 4 GiB each, says the directory
        content[found.start() + 24 : found.start() + 28] = size
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x.zip needs 8589\d+ bytes in .*, \d+ are free"):
        archive.safe_extract(path, tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


def test_settings_and_tables_that_are_something_else(tmp_path):
    run = start_run(tmp_path / "key", make_config(), make_images(8, 4))
    table = (run.folder / "samples.parquet").read_bytes()
    (run.folder / "samples.parquet").write_bytes((run.folder / "config.json").read_bytes())
    (run.folder / "config.json").write_bytes(table)
    with pytest.raises(ValueError, match=r"samples.parquet is damaged"):
        _ = run.samples
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        _ = RunDir(run.folder).config


def test_no_module_opens_pickles():
    for path in Path(retention_lib.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", text):
            assert "weights_only=True" in call, f"{path}: {call}"
        told = re.findall(r"pickle\.loads?\(|allow_pickle=True|read_pickle|joblib|extractall", text)
        assert told == [], path


def test_nothing_here_warns_of_unsafe_loading(tmp_path):
    run = start_run(tmp_path / "key", make_config(), make_images(8, 4))
    run.save_checkpoint({"epoch": 0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.load_checkpoint()["epoch"] == 0
