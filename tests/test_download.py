"""Downloads against a local server that misbehaves on demand, and archives that try to escape."""

import hashlib
import http.server
import io
import os
import socket
import stat
import tarfile
import threading
import zipfile

import pytest

from retention_lib.data import download

BODY = bytes(range(256)) * 4000  # about 1 MB
MD5 = hashlib.md5(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.body`; `server.plan` holds one behaviour for each request to come."""

    def do_GET(self):
        server, body, start = self.server, self.server.body, 0
        asked = self.headers.get("Range")
        server.asked.append(asked)
        how = server.plan.pop(0) if server.plan else "ok"
        if how in ("503", "404"):
            return self.send_error(int(how))
        if asked and how != "ignore range":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            shown = start + 7 if how == "wrong range" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = start + 300_000 if how == "cut" else len(body)
        self.wfile.write(body[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.body, server.plan, server.asked = BODY, [], []
        server.url = f"http://127.0.0.1:{server.server_address[1]}/data.tgz"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, tmp_path, **keys):
    options = {"size": len(BODY), "md5": MD5, "pause_s": 0.0} | keys
    return download.fetch(server.url, tmp_path / "data.tgz", **options)


def test_a_plain_download(server, tmp_path):
    assert get(server, tmp_path).read_bytes() == BODY
    assert [p.name for p in tmp_path.iterdir()] == ["data.tgz"] and server.asked == [None]


def test_an_interrupted_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.plan = ["cut", "cut", "ok"]
    told = []
    assert get(server, tmp_path, log=told.append).read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-", "bytes=600000-"]
    assert len(told) == 2 and "interrupted after 300000 bytes" in told[0]


def test_a_second_call_resumes(server, tmp_path):
    server.plan = ["cut"]
    with pytest.raises(OSError, match="300000 bytes kept"):
        get(server, tmp_path, attempts=1)
    assert not (tmp_path / "data.tgz").exists()
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_that_ignores_ranges_sends_everything_again(server, tmp_path):
    server.plan = ["cut", "ignore range"]
    assert get(server, tmp_path).read_bytes() == BODY


def test_a_server_that_sends_another_range_is_not_believed(server, tmp_path):
    server.plan = ["cut", "wrong range", "ok"]
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-", None]


@pytest.mark.parametrize("known", [True, False])
def test_a_complete_part_is_only_verified(server, tmp_path, known):
    (tmp_path / "data.tgz.part").write_bytes(BODY)
    assert get(server, tmp_path, size=len(BODY) if known else None).read_bytes() == BODY
    assert server.asked == ([] if known else [f"bytes={len(BODY)}-"])


@pytest.mark.parametrize("known", [True, False])
def test_a_part_that_is_too_long_is_dropped(server, tmp_path, known):
    (tmp_path / "data.tgz.part").write_bytes(BODY + b"more")
    assert get(server, tmp_path, size=len(BODY) if known else None).read_bytes() == BODY


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.plan = ["503", "ok"]
    assert get(server, tmp_path).read_bytes() == BODY
    server.plan, server.asked = ["404"], []
    with pytest.raises(OSError, match="404"):
        download.fetch(server.url, tmp_path / "other", pause_s=0.0)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"md5": "0" * 32}, f"has MD5 {MD5}, expected {'0' * 32}"),
        ({"size": 5, "md5": None}, f"has {len(BODY)} bytes, expected 5"),
        ({"size": 2 * len(BODY)}, f"has {len(BODY)} bytes, expected {2 * len(BODY)}"),
    ],
)
def test_a_wrong_file_is_refused_and_removed(server, tmp_path, keys, message):
    with pytest.raises(ValueError, match=message):
        get(server, tmp_path, **keys)
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_part_does_not_stay(server, tmp_path):
    (tmp_path / "data.tgz.part").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="MD5"):
        get(server, tmp_path)
    assert get(server, tmp_path).read_bytes() == BODY


def test_a_file_that_is_there_is_verified_never_replaced(server, tmp_path):
    (tmp_path / "data.tgz").write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"has 4 bytes, expected {len(BODY)}"):
        get(server, tmp_path)
    assert (tmp_path / "data.tgz").read_bytes() == b"mine" and server.asked == []


def test_no_network_fails_at_once(monkeypatch, tmp_path):
    def no_name(*args, **kwargs):
        raise download.urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr(download.urllib.request, "urlopen", no_name)
    monkeypatch.setattr(download.time, "sleep", lambda s: pytest.fail("waited"))
    with pytest.raises(OSError, match="Name or service not known"):
        download.fetch("http://nowhere.invalid/x", tmp_path / "x")


def test_other_schemes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="only http and https are downloaded, got 'file:"):
        download.fetch("file:///etc/passwd", tmp_path / "x")


def make_tar(path, members):
    """Members are (name, bytes) or (name, type, link target)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, *rest in members:
            info = tarfile.TarInfo(name)
            if isinstance(rest[0], str):
                info.type, info.linkname = rest[0].encode(), rest[1]
                tar.addfile(info)
            else:
                info.size, info.mode, info.uid = len(rest[0]), 0o4777, 12345
                tar.addfile(info, io.BytesIO(rest[0]))
    return path


SYM, HARD, DIR, FIFO, DEVICE = "2", "1", "5", "6", "3"


def test_extract_a_tar(tmp_path):
    members = [
        ("./top", DIR, ""),
        ("top/a.txt", b"A"),
        ("top/deep/er/b.txt", b"B"),
        ("top/link", SYM, "deep/er/b.txt"),
        ("top/deep/up", SYM, "../a.txt"),
        ("top/hard", HARD, "top/a.txt"),
    ]
    out = download.safe_extract(make_tar(tmp_path / "x.tgz", members), tmp_path / "out")
    read = {p.relative_to(out).as_posix(): p.read_text() for p in out.rglob("*") if p.is_file()}
    assert read == {
        "top/a.txt": "A", "top/deep/er/b.txt": "B", "top/link": "B", "top/deep/up": "A",
        "top/hard": "A",
    }  # fmt: skip
    made = (out / "top/a.txt").stat()
    assert not made.st_mode & stat.S_ISUID and made.st_uid == os.getuid()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("/etc/evil", b"x")], "absolute"),
        ([("../evil", b"x")], "leaves the folder"),
        ([("a/../../evil", b"x")], "leaves the folder"),
        ([("C:\\evil", b"x")], "foreign"),
        ([("c:evil", b"x")], "foreign"),
        ([("l", SYM, "/etc/passwd")], "absolute"),
        ([("l", SYM, "../evil")], "target '../evil' leaves"),
        ([("a/l", SYM, "../../evil")], "leaves"),
        ([("l", HARD, "../evil")], "leaves"),
        ([("d", DIR, ""), ("d/l", SYM, "."), ("d/l/x", b"x")], "below a link"),
        ([("d/l", SYM, "."), ("D/L/x", b"x")], "below a link"),
        # Each step looks harmless by itself; together they leave the folder.
        ([("d/up", SYM, ".."), ("out", SYM, "d/up/..")], "passes through a link"),
        ([("a", SYM, "b"), ("b", SYM, "a")], "passes through a link"),
        ([("a", SYM, "x"), ("h", HARD, "a")], "passes through a link"),
        ([("pipe", FIFO, "")], "not a file"),
        ([("null", DEVICE, "")], "not a file"),
    ],
)
def test_a_tar_that_escapes_writes_nothing(tmp_path, members, message):
    archive = make_tar(tmp_path / "x.tgz", [("good.txt", b"good"), *members])
    with pytest.raises(ValueError, match=message):
        download.safe_extract(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.tgz"]


@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_a_truncated_tar_is_named_with_what_to_do(tmp_path, kept):
    members = [(f"folder/{i}.bin", os.urandom(40_000)) for i in range(4)]
    whole = make_tar(tmp_path / "whole.tgz", members)
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(whole.read_bytes()[: int(kept * whole.stat().st_size)])
    with pytest.raises(ValueError, match=r"cut\.tgz is damaged .*delete it and fetch it again"):
        download.safe_extract(cut, tmp_path / "out")


def test_nothing_is_written_through_a_link_that_was_there(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/d").symlink_to(outside)
    with pytest.raises(ValueError, match="behind a link"):
        download.safe_extract(make_tar(tmp_path / "x.tgz", [("d/x", b"x")]), tmp_path / "out")
    (outside / "kept").write_text("kept")
    (tmp_path / "out/e").symlink_to(outside / "kept")
    download.safe_extract(make_tar(tmp_path / "x.tgz", [("e", b"new")]), tmp_path / "out")
    assert (outside / "kept").read_text() == "kept" and (tmp_path / "out/e").read_text() == "new"


def make_zip(path, names, mode=0o644):
    with zipfile.ZipFile(path, "w") as zipped:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            zipped.writestr(info, b"" if name.endswith("/") else name)
    return path


def test_extract_a_zip(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ["top/", "top/a.txt", "b/c.txt"])
    out = download.safe_extract(archive, tmp_path / "out")
    assert (out / "top/a.txt").read_text() == "top/a.txt" and (out / "b/c.txt").is_file()


@pytest.mark.parametrize("name", ["/evil", "../evil", "a/../../evil", "a\\..\\evil", "C:/evil"])
def test_a_zip_that_escapes_writes_nothing(tmp_path, name):
    with pytest.raises(ValueError, match="refusing to extract"):
        download.safe_extract(make_zip(tmp_path / "x.zip", ["good", name]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zip_links_other_files_and_full_disks(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="not a file"):
        download.safe_extract(make_zip(tmp_path / "x.zip", ["l"], 0o120777), tmp_path / "out")
    (tmp_path / "x.txt").write_text("no archive")
    with pytest.raises(ValueError, match="neither a tar nor a zip"):
        download.safe_extract(tmp_path / "x.txt", tmp_path / "out")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda p: type("Usage", (), {"free": 3}))
    with pytest.raises(ValueError, match=r"needs 4 bytes in .*, 3 are free"):
        download.safe_extract(make_zip(tmp_path / "y.zip", ["four"]), tmp_path / "out")


def cub_archive(path, extra=()):
    members = [("CUB_200_2011/images.txt", b"1 a/b.jpg\n"), ("attributes.txt", b"1 x\n"), *extra]
    return make_tar(path, [*members, ("CUB_200_2011/attributes/certainties.txt", b"")]).read_bytes()


def ensure(server, root, body):
    server.body = body
    md5 = hashlib.md5(body).hexdigest()
    return download.ensure_cub(root, server.url, len(body), md5, log=None)


def test_ensure_cub_downloads_once(server, tmp_path):
    body = cub_archive(tmp_path / "x.tgz")
    root = tmp_path / "data"
    place = ensure(server, root, body)
    assert place == root / "CUB_200_2011" and (place / "images.txt").is_file()
    assert (place / "attributes/attributes.txt").read_text() == "1 x\n"
    assert [p.name for p in root.iterdir()] == ["CUB_200_2011"]  # archive and half-way folder gone
    ensure(server, root, body)
    assert len(server.asked) == 1


def test_ensure_cub_never_touches_a_folder_that_is_there(server, tmp_path):
    (tmp_path / "CUB_200_2011").mkdir()
    assert ensure(server, tmp_path, b"") == tmp_path / "CUB_200_2011"
    assert server.asked == []


def test_ensure_cub_leaves_no_half_layout(server, tmp_path):
    root = tmp_path / "data"
    with pytest.raises(ValueError, match="refusing"):
        ensure(server, root, cub_archive(tmp_path / "x.tgz", [("../evil", b"x")]))
    assert not (root / "CUB_200_2011").exists() and not list(root.glob(".cub-*"))


def test_instructions_when_nothing_can_be_downloaded(server, tmp_path):
    server.plan = ["404"]
    with pytest.raises(
        OSError, match=r"get it by hand:\n.*1\. download http.*\n.*97eceeb1"
    ) as told:
        ensure(server, tmp_path, b"x")
    assert "404" in str(told.value)
    with pytest.raises(FileNotFoundError, match="2,064 images"):
        download.ensure_octdl(tmp_path)
    (tmp_path / "octdl").mkdir()
    assert download.ensure_octdl(tmp_path) == tmp_path / "octdl"
