"""The download stage: what it writes, and that no bad source gets anything past it."""

import gzip
import hashlib
import io
import json
import logging
import os
import socket
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from aevb import sources
from aevb.data import read_raw
from aevb.files import InputError
from aevb.plumbing.params import Data
from servers import Answer, Server, drip, raw, redirect, reset, send, serving, stall

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ROOT / "data" / "mnist"
NOWHERE = Path("/nowhere")
OFFICIAL = {
    "train-images-idx3-ubyte": (
        47040016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        60008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        7840016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        10008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
FIRST = "train-images-idx3-ubyte"
LAST = "t10k-labels-idx1-ubyte"
PUBLISHED = sources.published

Files = dict[str, bytes]


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in the IDX format."""
    head = bytes([0, 0, 8, array.ndim])
    return head + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def data(files: Files, **values: Any) -> Data:
    """The section `data` whose checksums are of these files."""
    return Data(sha256=[sha256(files[name]) for name in OFFICIAL], **values)


def fill(folder: Path, files: Files, packed: bool = True) -> Path:
    """A mirror folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
        else:
            (folder / name).write_bytes(content)
    return folder


def serve(server: Server, files: Files) -> None:
    """Let the server be a mirror of these files."""
    for name, content in files.items():
        server.answers[f"/{name}.gz"] = [send(gzip.compress(content, 1))]


def written(folder: Path) -> set[str]:
    """Whatever lies in a folder, hidden files too."""
    return {path.name for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def small() -> Files:
    """The first 300 training images and the first 100 test images."""
    counts = {"train": 300, "t10k": 100}
    result = {}
    for name in OFFICIAL:
        with gzip.open(BUNDLED / f"{name}.gz") as file:
            content = file.read(16 + 300 * 28 * 28)
        count, start = counts[name.split("-")[0]], 16 if "images" in name else 8
        pixels = np.frombuffer(content, np.uint8, offset=start)
        shape = (-1, 28, 28) if "images" in name else (-1,)
        result[name] = idx(pixels.reshape(shape)[:count])
    return result


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No public address, no proxy, no mirror of this machine's; short waits; all of the log."""
    for name in list(os.environ):
        if name == "AEVB_MIRROR" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sources, "published", lambda _: ([], {}))
    monkeypatch.setattr(sources, "TIMEOUTS", (2.0, 0.4))
    monkeypatch.setattr(sources, "DEADLINE", 3.0)
    monkeypatch.setattr(sources, "BACKOFF", 0.01)
    caplog.set_level(logging.DEBUG, "aevb")


def test_the_bundled_copy_is_mnist(tmp_path):
    output = tmp_path / "new" / "raw"
    sources.download(Data(), BUNDLED, output)
    for name, (size, digest) in OFFICIAL.items():
        content = (output / name).read_bytes()
        assert (len(content), sha256(content)) == (size, digest)
    digests = {name: digest for name, (_, digest) in OFFICIAL.items()}
    callback = {"name": "mnist", "sha256": digests}
    assert (output / "dataset.json").read_text() == json.dumps(
        callback, indent=2, sort_keys=True
    ) + "\n"
    assert written(output) == {*OFFICIAL, "dataset.json"}
    images, labels = read_raw(output, "train")
    assert images.shape == (60000, 28, 28)
    assert np.bincount(labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_as_mirror(tmp_path, small, packed):
    mirror = fill(tmp_path / "mirror", small, packed)
    sources.download(data(small, mirror=str(mirror)), BUNDLED, tmp_path / "raw")
    for name, content in small.items():
        assert (tmp_path / "raw" / name).read_bytes() == content


def test_a_server_as_mirror(tmp_path, small, server):
    serve(server, small)
    sources.download(data(small, mirror=f"{server.url}/"), BUNDLED, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in small} == small
    assert server.seen == [f"/{name}.gz" for name in OFFICIAL]
    assert json.loads((tmp_path / "dataset.json").read_text())["sha256"][FIRST] == sha256(
        small[FIRST]
    )


def test_a_server_that_labels_the_gz_as_an_encoding(tmp_path, small, server):
    for name, content in small.items():
        body = gzip.compress(content)
        server.answers[f"/{name}.gz"] = [send(body, Content_Encoding="gzip")]
    sources.download(data(small, mirror=server.url), NOWHERE, tmp_path)
    assert (tmp_path / LAST).read_bytes() == small[LAST]


def test_public_mirrors_come_last(tmp_path, server, monkeypatch, caplog):
    for name in OFFICIAL:
        server.answers[f"/public/{name}.gz"] = [send((BUNDLED / f"{name}.gz").read_bytes())]
    public = [f"{server.url}/gone/", f"{server.url}/public/"]
    monkeypatch.setattr(sources, "published", lambda _: (public, {}))
    sources.download(Data(mirror=str(tmp_path / "empty")), NOWHERE, tmp_path / "raw")
    assert sha256((tmp_path / "raw" / FIRST).read_bytes()) == OFFICIAL[FIRST][1]
    tried = [record.getMessage() for record in caplog.records][:3]
    assert [line.split(": ", 1)[1] for line in tried] == [
        f"{tmp_path}/empty/{FIRST}.gz: no such file",
        f"{server.url}/gone/{FIRST}.gz: the server answers 404",
        f"{FIRST} from {server.url}/public/{FIRST}.gz",
    ]


def test_what_torchvision_publishes():
    mirrors, digests = PUBLISHED("fashion_mnist")
    assert [mirror.split(":")[0] for mirror in mirrors] == ["https", "http"]
    assert digests[FIRST] == "8d4fb7e6c68d591d4c3dfef9ec88bf0d"
    assert set(digests) == set(OFFICIAL)
    mirrors, _ = PUBLISHED("mnist")
    assert [mirror.split(":")[0] for mirror in mirrors] == ["https", "https", "http"]
    assert all(mirror.endswith("/") for mirror in mirrors)
    assert PUBLISHED("kmnist")[1][LAST] == "7320c461ea6c1c855c0b718fb2a4b134"


def callback(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of the pipeline."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "aevb" and record.levelno >= logging.WARNING
    ]


def bomb(blocks: int) -> bytes:
    """A .gz of one member that unpacks to this many MiB of zeros."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + block * blocks + packer.flush()


def faults(good: bytes) -> dict[str, tuple[Answer, str]]:
    """Ways of a server to fail, and what is to be said of each."""
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 16
    torn = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(good), good[:100])
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + good[:100] + b"\r\n"
    head = b"HTTP/1.0 200 OK\r\n"
    return {
        "missing": (send(b"no", 404), "answers 404"),
        "broken": (send(b"no", 500), "answers 500"),
        "forbidden": (send(b"no", 403), "answers 403"),
        "no content": (send(b"", 204), "answers 204"),
        "page": (send(b"\n<!DOCTYPE html><title>Log in</title>"), "a web page"),
        "text": (send(b"not here"), "neither gzip nor IDX"),
        "empty": (send(b""), "empty"),
        "truncated": (send(good[: len(good) // 2]), "truncated"),
        "head only": (send(good[:6]), "truncated"),
        "half the length": (send(good[: len(good) // 2], length=len(good)), "more expected"),
        "torn chunks": (raw(chunked), ""),
        "flipped": (send(bytes(flipped)), ""),
        "junk after": (send(good + b"junk"), "damaged gzip"),
        "another": (send(gzip.compress(idx(np.zeros((3, 28, 28))))), "wrong checksum (SHA-256 "),
        "bomb": (send(bomb(65)), "unpacks to more than 67108864 bytes"),
        "stall at once": (stall(), "timed out"),
        "stall in the middle": (stall(torn), "timed out"),
        "drip": (drip(head + b"\r\n"), "not done in 1 s"),
        "drip of headers": (drip(head, b"X: y\r\n"), "not done in 1 s"),
        "reset at once": (reset(), "reset"),
        "reset in the middle": (reset(torn), ""),
        "no HTTP": (raw(b"\x1b[2J\r\n\r\n"), "BadStatusLine"),
        "circle": (redirect(f"/{FIRST}.gz"), "too many redirects"),
        "redirect to a file": (redirect("file:///etc/hosts"), "No connection adapters"),
    }


@pytest.mark.parametrize("fault", faults(bytes(200)))
def test_a_bad_source_is_told_and_the_next_one_used(
    tmp_path, small, server, monkeypatch, caplog, fault
):
    monkeypatch.setattr(sources, "DEADLINE", 1.0 if "drip" in fault else 5.0)
    answer, reason = faults(gzip.compress(small[FIRST]))[fault]
    serve(server, small)
    server.answers[f"/{FIRST}.gz"] = [answer]
    monkeypatch.setenv("AEVB_MIRROR", server.url)
    output = tmp_path / "raw"

    # Alone, it ends in one line, and there is nothing that looks like a result.
    begin = time.monotonic()
    with pytest.raises(InputError) as error:
        sources.download(data(small), NOWHERE, output)
    assert time.monotonic() - begin < 4
    assert f"{FIRST}: found nowhere ({server.url}/{FIRST}.gz: " in str(error.value)
    assert reason in str(error.value)
    assert "set data.mirror or AEVB_MIRROR" in str(error.value)
    assert str(error.value).isprintable()
    assert written(tmp_path) <= {"raw"}

    # With a good one behind it, it costs a warning.
    caplog.clear()
    mirror = fill(tmp_path / "mirror", small)
    sources.download(data(small, mirror=str(mirror)), NOWHERE, output)
    assert {name: (output / name).read_bytes() for name in small} == small
    warnings = callback(caplog)
    assert len(warnings) == 1
    assert f"{server.url}/{FIRST}.gz" in warnings[0]
    assert reason in warnings[0]
    assert warnings[0].isprintable()


def test_a_refused_connection(tmp_path, small):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InputError, match="Connection refused"):
            sources.download(data(small, mirror=url), NOWHERE, tmp_path)


@pytest.mark.parametrize(
    "first", [send(b"", 503), send(b"", 503, Retry_After="3600"), reset(), stall()]
)
def test_a_passing_failure_is_tried_again(tmp_path, small, server, caplog, first):
    serve(server, small)
    server.answers[f"/{FIRST}.gz"].insert(0, first)
    begin = time.monotonic()
    sources.download(data(small, mirror=server.url), NOWHERE, tmp_path)
    assert time.monotonic() - begin < 3
    assert server.seen.count(f"/{FIRST}.gz") == 2
    assert callback(caplog) == []


def test_tries_are_three(tmp_path, small, server):
    server.every = send(b"", 502)
    with pytest.raises(InputError, match="answers 502"):
        sources.download(data(small, mirror=server.url), NOWHERE, tmp_path)
    assert server.seen == [f"/{FIRST}.gz"] * 3


def test_a_redirect_is_followed(tmp_path, small, server):
    serve(server, {f"there/{name}": content for name, content in small.items()})
    for name in small:
        server.answers[f"/{name}.gz"] = [redirect(f"/there/{name}.gz")]
    sources.download(data(small, mirror=server.url), NOWHERE, tmp_path)
    assert (tmp_path / FIRST).read_bytes() == small[FIRST]


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_no_redirect_from_https_to_http(tmp_path, small, server, monkeypatch, scheme):
    serve(server, small)
    asked = []

    def answer(_: Any, request: requests.PreparedRequest, **__: Any) -> requests.Response:
        asked.append(request.url)
        response = requests.Response()
        response.status_code = 302
        response.url = str(request.url)
        response.raw = io.BytesIO()
        response.headers["Location"] = f"{scheme}{server.url[4:]}/{FIRST}.gz"
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", answer)
    with pytest.raises(InputError, match="redirects from https to an insecure address"):
        sources.download(data(small, mirror="https://example.org"), NOWHERE, tmp_path)
    assert asked == [f"https://example.org/{FIRST}.gz"]


def test_a_bomb_takes_little_memory():
    packed = bomb(2048)
    assert len(packed) < 4 * 2**20
    tracemalloc.start()
    with pytest.raises(sources.Unfit, match="unpacks to more than"):
        sources.unpack(packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * sources.LIMIT


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"200 OK", "larger than 1048576 bytes"),
        (b"302 Found\r\nLocation: /", "too many redirects"),
        (b"404 Not Found", "answers 404"),
    ],
)
def test_a_body_without_end_takes_little(tmp_path, small, server, monkeypatch, head, reason):
    monkeypatch.setattr(sources, "LIMIT", 2**20)
    server.every = drip(b"HTTP/1.0 " + head + b"\r\n\r\n", bytes(2**16), 0)
    with pytest.raises(InputError, match=reason):
        sources.download(data(small, mirror=server.url), NOWHERE, tmp_path)


def test_a_file_that_is_too_large(tmp_path, small, monkeypatch):
    mirror = fill(tmp_path / "mirror", small, packed=False)
    monkeypatch.setattr(sources, "LIMIT", 2**16)
    with pytest.raises(InputError, match="larger than 65536 bytes"):
        sources.download(data(small, mirror=str(mirror)), NOWHERE, tmp_path / "raw")


def test_order_of_sources(tmp_path, small, server, monkeypatch):
    def origin(name: str) -> str:
        """Which of three mirrors served the first file."""
        sources.download(data(small, mirror=f"{server.url}/b"), NOWHERE, tmp_path / name)
        served = [path for path in server.seen if path.endswith(f"{FIRST}.gz")]
        server.seen.clear()
        return " ".join(path[1] for path in served)

    for folder in ("a", "b"):
        serve(server, {f"{folder}/{name}": content for name, content in small.items()})
    assert origin("1") == "b"
    monkeypatch.setenv("AEVB_MIRROR", f"{server.url}/a")
    assert origin("2") == "a"
    server.answers[f"/a/{FIRST}.gz"] = [send(b"", 404)]
    assert origin("3") == "a b"
    for nothing in ("none", ""):
        monkeypatch.setenv("AEVB_MIRROR", nothing)
        assert origin(nothing or "empty") == "b"


def test_the_bundled_copy_comes_before_mirrors(tmp_path, server, monkeypatch):
    monkeypatch.setenv("AEVB_MIRROR", server.url)
    sources.download(Data(mirror=server.url), BUNDLED, tmp_path)
    assert server.seen == []


def test_own_checksums_are_not_asked_of_public_mirrors(tmp_path, small, monkeypatch):
    monkeypatch.setattr(sources, "published", lambda _: pytest.fail("asked"))
    with pytest.raises(InputError, match="wrong checksum") as error:
        sources.download(data(small), BUNDLED, tmp_path)
    assert str(BUNDLED) in str(error.value)
    with pytest.raises(InputError, match="no source to try"):
        sources.download(data(small), NOWHERE, tmp_path)


def test_other_data_sets_by_md5(tmp_path, small, monkeypatch):
    mirror = fill(tmp_path / "mirror", small)
    digests = {
        name: hashlib.md5((mirror / f"{name}.gz").read_bytes()).hexdigest() for name in small
    }
    monkeypatch.setattr(sources, "published", lambda _: ([], digests))
    for _ in range(2):
        sources.download(Data(name="kmnist", mirror=str(mirror)), BUNDLED, tmp_path / "raw")
    assert (tmp_path / "raw" / LAST).read_bytes() == small[LAST]
    assert json.loads((tmp_path / "raw" / "dataset.json").read_text()) == {
        "name": "kmnist",
        "sha256": {name: sha256(content) for name, content in small.items()},
    }
    plain = fill(tmp_path / "plain", small, packed=False)
    with pytest.raises(InputError, match=r"wrong checksum \(MD5 of the \.gz is "):
        sources.download(Data(name="kmnist", mirror=str(plain)), BUNDLED, tmp_path / "other")


WRONG = {
    "27 rows": ({FIRST: idx(np.ones((300, 27, 28)))}, "27, 28"),
    "no images": ({FIRST: idx(np.ones((0, 28, 28)))}, "0, 28, 28"),
    "a label of 10": ({LAST: idx(np.full(100, 10))}, "a label is 10"),
    "too few labels": ({LAST: idx(np.zeros(99))}, "100 images"),
    "no IDX": ({FIRST: b"hello"}, "not an IDX file"),
    "too short": ({FIRST: idx(np.ones((300, 28, 28)))[:-1]}, "the header says"),
}


@pytest.mark.parametrize("case", WRONG)
def test_checksums_do_not_vouch_for_other_than_images(tmp_path, small, case):
    changes, reason = WRONG[case]
    files = {**small, **changes}
    mirror = fill(tmp_path / "mirror", files)
    with pytest.raises(InputError, match=reason):
        sources.download(data(files, mirror=str(mirror)), NOWHERE, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_good_files_are_kept(tmp_path, small, server):
    serve(server, small)
    section = data(small, mirror=server.url)
    sources.download(section, NOWHERE, tmp_path)
    before = {name: (tmp_path / name).stat() for name in small}
    damaged = bytearray(small[LAST])
    damaged[-1] ^= 1
    (tmp_path / LAST).write_bytes(damaged)
    server.seen.clear()
    sources.download(section, NOWHERE, tmp_path)
    assert server.seen == [f"/{LAST}.gz"]
    assert (tmp_path / LAST).read_bytes() == small[LAST]
    for name in set(small) - {LAST}:
        after = (tmp_path / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before[name].st_ino, before[name].st_mtime_ns)


def test_a_failure_leaves_what_was_there(tmp_path, small):
    mirror = fill(tmp_path / "mirror", small)
    output = tmp_path / "raw"
    sources.download(data(small, mirror=str(mirror)), NOWHERE, output)
    other = {**small, LAST: idx(np.zeros(100))}
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(InputError, match=LAST):
        sources.download(data(other, mirror=str(mirror)), NOWHERE, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_folder_with_dataset_json_is_whole(tmp_path, small, monkeypatch):
    mirror = fill(tmp_path / "mirror", small)
    count = iter(range(10))
    write = sources.write_bytes

    def full(path: Path, content: bytes) -> None:
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        write(path, content)

    fill(tmp_path / "raw", {"dataset.json": b"{}"}, packed=False)
    monkeypatch.setattr(sources, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        sources.download(data(small, mirror=str(mirror)), NOWHERE, tmp_path / "raw")
    assert written(tmp_path / "raw") == set(list(OFFICIAL)[:2])


@pytest.mark.parametrize("mirror", ["ftp://example.org/mnist", "file:///data", "s3://b", "file:x"])
def test_other_schemes(tmp_path, monkeypatch, mirror):
    words = "should be a folder, http:// or https://"
    with pytest.raises(InputError, match=f"^mirror {mirror}: {words}$"):
        sources.download(Data(mirror=mirror), BUNDLED, tmp_path)
    monkeypatch.setenv("AEVB_MIRROR", mirror)
    with pytest.raises(InputError, match=words):
        sources.download(Data(), BUNDLED, tmp_path)


def test_the_home_of_nobody_is_a_folder_that_is_not_there(tmp_path, small):
    mirror = "~nobody-of-this-name/x"
    with pytest.raises(InputError, match=f"{mirror}/{FIRST}.gz: no such file"):
        sources.download(data(small, mirror=mirror), NOWHERE, tmp_path / "raw")


def test_a_password_is_used_and_not_told(tmp_path, small, server, caplog):
    serve(server, small)
    server.answers[f"/{LAST}.gz"] = [send(b"", 403)]
    mirror = f"http://me:secret@127.0.0.1:{server.server_port}"
    with pytest.raises(InputError) as error:
        sources.download(data(small, mirror=mirror), NOWHERE, tmp_path)
    assert server.headers[0]["Authorization"] == "Basic bWU6c2VjcmV0"
    assert "secret" not in caplog.text + str(error.value)
    assert f"{server.url}/{LAST}.gz: the server answers 403" in caplog.text


def command(folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The stage as a user runs it, without a network: the proxy's port is closed."""
    dead = dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"
    )
    return subprocess.run(
        [sys.executable, str(ROOT / "src" / "download.py"), *flags],
        cwd=folder,
        env={**os.environ, **dead, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line(tmp_path):
    done = command(tmp_path, "--bundled", str(BUNDLED), "--output", "raw", "--log", "logs/d.log")
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "raw") == {*OFFICIAL, "dataset.json"}
    assert f"{LAST} from" in (tmp_path / "logs" / "d.log").read_text()


def test_the_usual_way_needs_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from aevb import sources; "
        "from aevb.params import Data; "
        f"sources.download(Data(), Path({str(BUNDLED)!r}), Path('raw')); "
        "sys.exit(', '.join({'torch', 'torchvision', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mirror", "ftp://example.org"], "mirror ftp://example.org: should be a folder"),
        (["--sha256", "0" * 64], "--sha256 needs four checksums or none, not 1"),
        (["--sha256", *["0" * 64] * 4], f"{FIRST}: found nowhere"),
        (["--sha256", *["0" * 63] * 4], "--sha256.0 is"),
        (["--mirror", "a b"], "--mirror is 'a b'"),
        (["--name", "fashion_mnist", "--mirror", "fake"], "wrong checksum (MD5 of the .gz is "),
    ],
)
def test_errors_are_one_line(tmp_path, small, flags, words):
    fill(tmp_path / "fake", small)
    done = command(tmp_path, "--bundled", str(BUNDLED), "--output", "raw", *flags)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    *before, last = done.stderr.splitlines()
    assert last.startswith("download: error: ")
    assert words in last
    assert not [line for line in before if "error:" in line]
    assert written(tmp_path) == written(tmp_path / "fake") | {"fake"}


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "raw").write_text("a file")
    done = command(tmp_path, "--bundled", str(BUNDLED), "--output", "raw")
    assert done.returncode == 1
    assert "Not a directory" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_variable_on_the_command_line(tmp_path, small):
    fill(tmp_path / "mirror", small)
    digests = [sha256(small[name]) for name in OFFICIAL]
    done = command(tmp_path, "--output", "raw", "--sha256", *digests, AEVB_MIRROR="mirror")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "raw" / FIRST).read_bytes() == small[FIRST]
