"""Decoding: the cache against a slow readable twin, broken files, scanning, identities."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from retention_lib.data import decode, known, scan


def _picture(height, width, seed=0, mode="RGB"):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def _files(folder, n=6, **shape):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(n)]
    for i, path in enumerate(paths):
        _picture(shape.get("height", 40), shape.get("width", 90), i).save(path)
    return paths


def _twin(path, size):
    """Resize the whole picture, then cut the centre: the usual two steps."""
    image = Image.open(path).convert("RGB")
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 80), (120, 40)])
def test_decode_agrees_with_resize_and_crop(tmp_path, height, width):
    paths = _files(tmp_path / "in", height=height, width=width)
    images, broken = decode.decode(paths, 20, tmp_path / "cache", "k", workers=2)
    assert broken == [] and images.shape == (6, 20, 20, 3) and images.dtype == np.uint8
    slow = np.stack([_twin(path, 20) for path in paths])
    # The twin's filter reads a little beyond the crop, which matters at the edge only.
    edge = 0 if height == width else 2
    inner = slice(edge, 20 - edge)
    assert np.array_equal(images[:, inner, inner], slow[:, inner, inner])


def test_cache_is_opened_not_decoded_again(tmp_path):
    paths = _files(tmp_path / "in")
    first, _ = decode.decode(paths, 16, tmp_path / "cache", "k")
    kept = first.copy()
    for path in paths:
        path.unlink()
    told = []
    again, broken = decode.decode(paths, 16, tmp_path / "cache", "k", log=told.append)
    assert np.array_equal(again, kept) and broken == [] and told == []
    assert isinstance(again, np.memmap) and not again.flags.writeable
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["k.npy"]  # no temporary is left
    with pytest.raises(ValueError, match=r"\(6, 16, 16, 3\), expected uint8 \(6, 8, 8, 3\)"):
        decode.decode(paths, 8, tmp_path / "cache", "k")


def test_result_does_not_depend_on_workers(tmp_path):
    paths = _files(tmp_path / "in", n=12)
    one, _ = decode.decode(paths, 16, tmp_path, "one", workers=1)
    four, _ = decode.decode(paths, 16, tmp_path, "four", workers=4)
    assert np.array_equal(one, four)


def test_broken_files_are_returned_with_reason_and_remembered(tmp_path):
    paths = _files(tmp_path / "in", n=3)
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    for _ in range(2):  # decoded, then from the cache
        images, broken = decode.decode(paths, 16, tmp_path / "cache", "k")
        assert [path for path, _ in broken] == [str(paths[1])]
        assert "truncated" in broken[0][1] and images[1].max() == 0 and images[2].max() > 0


def test_an_interrupted_decode_leaves_no_cache(tmp_path, monkeypatch):
    def stop(image, size, fit):
        raise KeyboardInterrupt

    monkeypatch.setattr(decode, "square", stop)
    with pytest.raises(KeyboardInterrupt):
        decode.decode(_files(tmp_path / "in"), 16, tmp_path / "cache", "k", workers=1)
    assert list((tmp_path / "cache").iterdir()) == []


def test_full_disk_is_an_error_before_writing(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 4608 bytes, 100 are free"):
        decode.decode(_files(tmp_path / "in"), 16, tmp_path, "k")


def test_no_paths_or_no_size(tmp_path):
    with pytest.raises(ValueError, match="got 0 and 16"):
        decode.decode([], 16, tmp_path, "k")
    with pytest.raises(ValueError, match="got 1 and 0"):
        decode.decode([tmp_path / "a.png"], 0, tmp_path, "k")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_modes_become_rgb(mode):
    buffer = io.BytesIO()
    source = _picture(30, 30)
    source = source.convert("L").convert(mode) if mode == "LA" else source.convert(mode)
    source.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    out = decode.square(scan.read_image(buffer.getvalue()), 30)
    assert np.array_equal(out, np.asarray(source.convert("RGB")))


def test_more_than_8_bits_is_refused_not_clipped():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 4000, dtype=np.uint16)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="I;16 has more than 8 bits"):
        scan.read_image(buffer.getvalue())


def test_scan_says_what_is_wrong_with_each_file(tmp_path):
    good, cut, empty, text = (tmp_path / f"{x}.jpg" for x in ("good", "cut", "empty", "text"))
    _picture(60, 60).save(good)
    cut.write_bytes(good.read_bytes()[:-300])
    empty.write_bytes(b"")
    text.write_bytes(b"<html>not found</html>")
    names = ["good.jpg", "cut.jpg", "empty.jpg", "text.jpg", "gone.jpg"]
    table = scan.scan(tmp_path, names)
    assert table["path"].tolist() == names
    reasons = table["reason"].tolist()
    assert reasons[0] == "" and reasons[2] == "empty file"
    assert reasons[1].startswith("broken image: OSError: image file is truncated")
    assert reasons[3] == "broken image: UnidentifiedImageError: cannot identify image file"
    assert reasons[4] == "unreadable file: No such file or directory"
    assert table["file_bytes"].tolist()[0] == good.stat().st_size
    assert len(table["content_hash"][0]) == 16


def test_scan_remembers_and_notices_changes(tmp_path):
    paths = [p.name for p in _files(tmp_path / "in", n=4)]
    told = []
    first = scan.scan(tmp_path / "in", paths, tmp_path / "cache", log=told.append)
    again = scan.scan(tmp_path / "in", paths, tmp_path / "cache", log=told.append)
    pd.testing.assert_frame_equal(first, again)
    assert len(told) == 1 and told[0].startswith("verified 4 files")
    _picture(40, 90, seed=99).save(tmp_path / "in" / paths[2])
    third = scan.scan(tmp_path / "in", paths, tmp_path / "cache", log=told.append)
    changed = third["content_hash"] != first["content_hash"]
    assert changed.tolist() == [False, False, True, False]
    assert told[1].startswith("verified 1 files")


def test_fingerprint_depends_on_path_content_order_and_size():
    base = decode.fingerprint(["a", "b"], ["1", "2"], 64)
    assert base == decode.fingerprint(["a", "b"], ["1", "2"], 64)
    others = [
        decode.fingerprint(["a", "c"], ["1", "2"], 64),
        decode.fingerprint(["a", "b"], ["1", "3"], 64),
        decode.fingerprint(["b", "a"], ["2", "1"], 64),
        decode.fingerprint(["a", "b"], ["1", "2"], 65),
    ]
    assert len({base, *others}) == 5


def test_a_known_name_with_other_contents_is_an_error():
    table = pd.DataFrame({"path": ["AMD/a.jpg"], "label": [0], "split": ["train"]})
    with pytest.raises(ValueError, match=r"counts should be .*985.*found .*'AMD': 1"):
        known.check_identity("octdl", "official", ("AMD",), table)
    known.check_identity("octdl", "images-1-abc", ("AMD",), table)  # nothing is known: passes


def test_committed_identities_are_consistent():
    folder = known.resources.files("retention_lib.data")
    listed = json.loads((folder / "identities.json").read_text())
    assert listed["octdl"] == listed["known"]["octdl/official"]["identity"]
    assert listed["cub"] == listed["known"]["cub/classes-001-050"]["identity"]
    totals = {
        name: [sum(entry["counts"][split].values()) for split in ("train", "val")]
        for name, entry in listed["known"].items()
    }
    assert totals == {"octdl/official": [1651, 413], "cub/classes-001-050": [1500, 1389]}


def test_squash_keeps_the_whole_width_and_crop_only_the_centre():
    ramp = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (30, 1))
    image = Image.fromarray(ramp)
    squashed, cropped = (decode.square(image, 30, fit)[15, :, 0] for fit in decode.FITS[::-1])
    assert squashed[0] < 5 and squashed[-1] > 250
    assert 80 < cropped[0] < 90 and 165 < cropped[-1] < 175


def test_an_unknown_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"fit must be one of .* got 'stretch'"):
        decode.decode([tmp_path / "a.png"], 8, tmp_path, "k", fit="stretch")
