"""The download stage: the order of the sources, and that no damaged file is accepted."""

import gzip
import hashlib
import json
import os
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

from aevb.data import RAW_FILES
from aevb.datasets import DATASETS
from aevb.files import InputError
from conftest import ROOT, as_idx, first_images
from stages import run_or_raise, run_script

import numpy as np
import pytest
from torchvision import datasets

BUNDLED = ROOT / "data" / "mnist"
FIRST, *_, LAST = RAW_FILES
SMALL = {name: as_idx(first_images(name)) for name in RAW_FILES}
GOOD = gzip.compress(SMALL[FIRST])

Files = dict[str, bytes]


def sha256(files: Files) -> list[str]:
    return [hashlib.sha256(files[name]).hexdigest() for name in RAW_FILES]


def run(output: Path, *flags: object, bundled: Path = BUNDLED) -> Files:
    """Run the stage in this process; the files that it wrote, without dataset.json."""
    run_or_raise("download", "--bundled", bundled, "--output", output, *flags)
    return {path.name: path.read_bytes() for path in output.iterdir() if path.suffix != ".json"}


def own(files: Files, mirror: object = "none") -> list[object]:
    """The flags for other files than the official ones."""
    return ["--sha256", *sha256(files), "--mirror", mirror]


def fill(folder: Path, files: Files) -> Path:
    """A mirror folder with these files."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    return folder


class Handler(BaseHTTPRequestHandler):
    """Gives the next answer of a path, a status and a body; the last one is repeated."""

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        self.server.headers.append(self.headers)
        answers = self.server.answers.get(self.path, [(404, b"")])
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing to the terminal."""


@pytest.fixture
def server():
    """A web server on this machine that gives the answers that a test has prepared."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url, server.seen = f"http://127.0.0.1:{server.server_port}", []
        server.answers, server.headers = {}, []
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def serve(server: ThreadingHTTPServer, folder: str = "") -> str:
    """The URL of a mirror of the small files."""
    for name, content in SMALL.items():
        server.answers[f"{folder}/{name}.gz"] = [(200, gzip.compress(content, 1))]
    return server.url + folder


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No public mirror, no proxy, no mirror of this machine, no waiting before a retry."""
    for name in list(os.environ):
        if name == "AEVB_MIRROR" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for dataset in DATASETS.values():
        monkeypatch.setattr(getattr(datasets, dataset.torchvision), "mirrors", [])
    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_the_bundled_copy_is_the_official_mnist(tmp_path):
    found = run(tmp_path / "new" / "raw")
    assert sha256(found) == list(DATASETS["mnist"].sha256)
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name, digest in zip(RAW_FILES, sha256(found), strict=True):
        assert f"| {name} | {len(found[name]):,} | `{digest}` |" in readme
    assert json.loads((tmp_path / "new" / "raw" / "dataset.json").read_text()) == {
        "name": "mnist",
        "sha256": dict(zip(RAW_FILES, sha256(found), strict=True)),
    }


def test_data_sets_have_four_checksums_in_the_order_of_the_files():
    for checksums in ((), ("0" * 64,) * 3):
        with pytest.raises(ValueError, match="MNIST: needs four"):
            replace(DATASETS["mnist"], torchvision="", sha256=checksums)
    for dataset in DATASETS.values():
        files = [file for file, _ in getattr(datasets, dataset.torchvision).resources]
        assert files == [f"{file}.gz" for file in RAW_FILES]


def test_a_folder_with_unpacked_files_as_mirror(raw_subset, tmp_path):
    assert run(tmp_path / "new", *own(SMALL, raw_subset)) == SMALL


def test_a_busy_server_is_asked_again_and_so_it_is_for_a_damaged_file(tmp_path, server):
    flags = own(SMALL, f"{serve(server)}/")
    server.answers[f"/{FIRST}.gz"].insert(0, (503, b""))
    assert run(tmp_path, *flags) == SMALL
    (tmp_path / LAST).write_bytes(SMALL[LAST][:-1] + b"\xff")
    assert run(tmp_path, *flags) == SMALL
    assert server.seen == [f"/{name}.gz" for name in (FIRST, *RAW_FILES, LAST)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b"no"), "404 Client Error"),
        ((200, b"<!DOCTYPE html><title>Log in</title>"), "Not a gzipped file"),
        ((200, GOOD[:-100]), "ended before the end-of-stream marker"),
        ((200, gzip.compress(SMALL[LAST])), "list the SHA-256 of all four in data.sha256"),
        (None, "Connection refused"),
    ],
)
def test_a_bad_source_is_named_and_the_next_one_is_used(
    tmp_path, server, monkeypatch, answer, words
):
    url = serve(server)
    server.answers[f"/{FIRST}.gz"] = [answer]
    if answer is None:
        url = "http://127.0.0.1:1"
    monkeypatch.setenv("AEVB_MIRROR", url)
    with pytest.raises(InputError) as error:
        run(tmp_path / "raw", *own(SMALL))
    message = str(error.value)
    assert message.startswith(f"{FIRST}: not found ({url}/{FIRST}.gz: ")
    assert words in message
    assert f"{BUNDLED}/{FIRST}.gz: wrong checksum" in message
    assert not (tmp_path / "raw").exists()
    assert run(tmp_path / "raw", *own(SMALL, fill(tmp_path / "mirror", SMALL))) == SMALL


def test_the_order_of_sources(tmp_path, server, monkeypatch):
    mirrors = {name: serve(server, f"/{name}") for name in "abc"}
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{mirrors['c']}/"])
    small = replace(DATASETS["mnist"], sha256=tuple(sha256(SMALL)))
    monkeypatch.setitem(DATASETS, "mnist", small)

    def asked(output: str, *flags: object, bundled: Path = tmp_path) -> str:
        """The mirrors that were asked for the first file, in their order."""
        server.seen.clear()
        run(tmp_path / output, "--mirror", mirrors["b"], *flags, bundled=bundled)
        return "".join(path[1] for path in server.seen if FIRST in path)

    assert asked("1") == "b"
    monkeypatch.setenv("AEVB_MIRROR", mirrors["a"])
    assert asked("2") == "a"
    for mirror in "ab":
        server.answers[f"/{mirror}/{FIRST}.gz"] = [(200, b"")]
    assert asked("3") == "abc"
    assert asked("3") == ""  # the file is there already
    bundled = fill(tmp_path / "bundled", SMALL)
    assert asked("4", bundled=bundled) == ""
    assert asked("5", "--sha256", *sha256(SMALL), bundled=bundled) == "ab"
    with pytest.raises(InputError) as error:
        run(tmp_path / "6", "--sha256", *["0" * 64] * 4)
    assert mirrors["c"] not in str(error.value)  # other files than the official ones


def test_a_data_set_of_which_only_the_md5_is_published(tmp_path, monkeypatch):
    mirror = fill(tmp_path / "mirror", SMALL)
    packed = [(mirror / f"{name}.gz").read_bytes() for name in RAW_FILES]
    known = [("", hashlib.md5(content).hexdigest()) for content in packed]
    monkeypatch.setattr(datasets.KMNIST, "resources", known)
    flags = ("--name", "kmnist", "--mirror", mirror)
    assert run(tmp_path / "raw", *flags) == SMALL
    assert json.loads((tmp_path / "raw" / "dataset.json").read_text())["name"] == "kmnist"
    fill(mirror, {FIRST: SMALL[LAST]})
    with pytest.raises(InputError, match="wrong checksum: its SHA-256 is "):
        run(tmp_path / "raw", *flags)


def test_nothing_incomplete_has_a_dataset_json(tmp_path, monkeypatch):
    files = {**SMALL, LAST: as_idx(np.full(200, 10, np.uint8))}
    with pytest.raises(InputError, match="a label is 10"):
        run(tmp_path / "raw", *own(files, fill(tmp_path / "labels", files)))
    assert not (tmp_path / "raw").exists()

    flags = own(SMALL, fill(tmp_path / "mirror", SMALL))
    run(tmp_path / "raw", *flags)
    monkeypatch.setattr("aevb.files.write_bytes", Mock(side_effect=OSError(28, "No space left")))
    with pytest.raises(InputError, match="No space"):
        run(tmp_path / "raw", *flags)
    assert not (tmp_path / "raw" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mirror", "nowhere"], "mirror nowhere: neither an existing folder nor a URL"),
        (["--mirror", "ftp://a.org"], "mirror ftp://a.org: neither an existing folder nor a URL"),
        (["--sha256", "0" * 64], "four checksums or none"),
    ],
)
def test_wrong_parameters_are_refused_though_there_is_the_bundled_copy(tmp_path, flags, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "raw", *flags)
    assert not (tmp_path / "raw").exists()


def test_passwords_reach_the_server_and_no_log(tmp_path, server):
    mirror = serve(server).replace("//", "//me:secret@")
    words = ["--output", tmp_path / "raw", "--log", tmp_path / "log"]
    done = run_script("download", *words, *own(SMALL, mirror))
    assert done.code == 0, done.error
    assert server.headers[0]["Authorization"] == "Basic bWU6c2VjcmV0"
    failed = run_script("download", *words, "--mirror", mirror, "--sha256", *["0" * 64] * 4)
    assert failed.code == 1
    log = (tmp_path / "log").read_text()
    assert f"download: {LAST} from {server.url}/{LAST}.gz" in log
    assert "secret" not in log + done.error + failed.error
