"""The download stage: the order of the sources, and that no damaged file gets through."""

import gzip
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import get_args
from unittest.mock import Mock

import numpy as np
import pytest

import download
from aevb.data import RAW_FILES
from aevb.datasets import DATASETS, Dataset
from aevb.files import InputError
from aevb.plumbing.params import Data
from conftest import ROOT, as_idx, first_images
from servers import Server, send, serving
from stages import call_main

BUNDLED = ROOT / "data" / "mnist"
FIRST, *_, LAST = RAW_FILES
SMALL = {name: as_idx(first_images(name)) for name in RAW_FILES}
GOOD = gzip.compress(SMALL[FIRST])
PUBLISHED = download.published

Files = dict[str, bytes]


def sha256(files: Files) -> list[str]:
    return [hashlib.sha256(files[name]).hexdigest() for name in RAW_FILES]


def run(output: Path, *flags: object, bundled: Path = BUNDLED) -> Files:
    """Run the stage in this process; the files that it wrote, without dataset.json."""
    call_main(download.main, "--bundled", bundled, "--output", output, *flags)
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


def serve(server: Server, folder: str = "") -> str:
    """The URL of a mirror of the small files."""
    for name, content in SMALL.items():
        server.answers[f"{folder}/{name}.gz"] = [send(gzip.compress(content, 1))]
    return server.url + folder


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No public mirror, no proxy, no mirror of this machine, no waiting before a retry."""
    for name in list(os.environ):
        if name == "AEVB_MIRROR" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(download, "published", lambda _: SimpleNamespace(mirrors=[]))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    caplog.set_level(logging.INFO, "aevb")


def test_the_bundled_copy_is_the_official_mnist(tmp_path):
    found = run(tmp_path / "new" / "raw")
    assert sha256(found) == list(DATASETS["mnist"].sha256)
    assert set(found) == set(RAW_FILES)
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name, digest in zip(RAW_FILES, sha256(found), strict=True):
        assert f"| {name} | {len(found[name]):,} | `{digest}` |" in readme
    assert json.loads((tmp_path / "new" / "raw" / "dataset.json").read_text()) == {
        "name": "mnist",
        "sha256": dict(zip(RAW_FILES, sha256(found), strict=True)),
    }


def test_an_incomplete_data_set_is_refused():
    with pytest.raises(TypeError, match="licence"):
        Dataset(title="Digits", torchvision="MNIST", sha256=())
    for checksums in ((), ("0" * 64,) * 3):
        with pytest.raises(ValueError, match="Digits: needs four"):
            Dataset(title="Digits", licence="CC0", torchvision="", sha256=checksums)
    assert get_args(Data.model_fields["name"].annotation) == tuple(DATASETS)


def test_torchvision_lists_the_public_files_in_our_order():
    for name in DATASETS:
        known = PUBLISHED(name)
        assert [file for file, _ in known.resources] == [f"{file}.gz" for file in RAW_FILES]
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in known.mirrors)


def test_a_folder_with_unpacked_files_as_mirror(raw_subset, tmp_path):
    assert run(tmp_path / "new", *own(SMALL, raw_subset)) == SMALL


def test_a_busy_server_is_asked_again_and_so_it_is_for_a_damaged_file(
    tmp_path, server, monkeypatch, capsys
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    flags = own(SMALL, f"{serve(server)}/")
    server.answers[f"/{FIRST}.gz"].insert(0, send(b"", 503))
    assert run(tmp_path, *flags) == SMALL
    assert "bytes" in capsys.readouterr().err  # the progress bar
    (tmp_path / LAST).write_bytes(SMALL[LAST][:-1] + b"\xff")
    assert run(tmp_path, *flags) == SMALL
    assert server.seen == [f"/{name}.gz" for name in (FIRST, *RAW_FILES, LAST)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (send(b"no", 404), "404 Client Error"),
        (send(b"<!DOCTYPE html><title>Log in</title>"), "Not a gzipped file"),
        (send(GOOD[:-100]), "ended before the end-of-stream marker"),
        (send(GOOD[:-100], length=len(GOOD)), "100 more expected"),
        (send(gzip.compress(SMALL[LAST])), "wrong checksum: sha256 is "),
        (None, "Connection refused"),
    ],
)
def test_a_bad_source_is_named_and_the_next_one_is_used(
    tmp_path, server, monkeypatch, caplog, answer, words
):
    url = serve(server)
    server.answers[f"/{FIRST}.gz"] = [answer]
    if answer is None:
        with serving() as closed:
            url = closed.url
    monkeypatch.setenv("AEVB_MIRROR", url)
    with pytest.raises(InputError) as error:
        run(tmp_path / "raw", *own(SMALL))
    message = str(error.value)
    assert message.startswith(f"{FIRST}: not found ({url}/{FIRST}.gz: ")
    assert words in message
    assert f"{BUNDLED}/{FIRST}.gz: wrong checksum" in message
    assert "set data.mirror or AEVB_MIRROR" in message
    assert not (tmp_path / "raw").exists()

    caplog.clear()
    assert run(tmp_path / "raw", *own(SMALL, fill(tmp_path / "mirror", SMALL))) == SMALL
    assert f"{url}/{FIRST}.gz" in caplog.messages[0]
    assert words in caplog.messages[0]


def test_the_order_of_sources(tmp_path, server, monkeypatch):
    mirrors = {name: serve(server, f"/{name}") for name in "abc"}
    public = SimpleNamespace(mirrors=[f"{mirrors['c']}/"])
    monkeypatch.setattr(download, "published", lambda _: public)
    monkeypatch.setitem(DATASETS, "mnist", Dataset("", "", "MNIST", tuple(sha256(SMALL))))

    def asked(output: str, *flags: object, bundled: Path = tmp_path) -> str:
        """The mirrors that were asked for the first file, in their order."""
        server.seen.clear()
        run(tmp_path / output, "--mirror", mirrors["b"], *flags, bundled=bundled)
        return "".join(path[1] for path in server.seen if FIRST in path)

    assert asked("1") == "b"
    monkeypatch.setenv("AEVB_MIRROR", mirrors["a"])
    assert asked("2") == "a"
    for mirror in "ab":
        server.answers[f"/{mirror}/{FIRST}.gz"] = [send(b"")]
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
    public = SimpleNamespace(mirrors=[], resources=known)
    monkeypatch.setattr(download, "published", lambda _: public)
    flags = ("--name", "kmnist", "--mirror", mirror)
    assert run(tmp_path / "raw", *flags) == SMALL
    assert json.loads((tmp_path / "raw" / "dataset.json").read_text())["name"] == "kmnist"
    fill(mirror, {FIRST: SMALL[LAST]})
    with pytest.raises(InputError, match="wrong checksum: md5 is "):
        run(tmp_path / "raw", *flags)


def test_nothing_incomplete_has_a_dataset_json(tmp_path, monkeypatch):
    files = {**SMALL, LAST: as_idx(np.full(200, 10, np.uint8))}
    with pytest.raises(InputError, match="a label is 10"):
        run(tmp_path / "raw", *own(files, fill(tmp_path / "labels", files)))
    assert not (tmp_path / "raw").exists()

    flags = own(SMALL, fill(tmp_path / "mirror", SMALL))
    run(tmp_path / "raw", *flags)
    monkeypatch.setattr(download, "write_bytes", Mock(side_effect=OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        run(tmp_path / "raw", *flags)
    assert not (tmp_path / "raw" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mirror", "nowhere"], "mirror nowhere: neither an existing folder nor a URL"),
        (["--mirror", "ftp://a.org"], "mirror ftp://a.org: neither an existing folder nor a URL"),
        (["--sha256", "0" * 64], "--sha256 needs four checksums or none"),
    ],
)
def test_wrong_parameters_are_refused_though_there_is_the_bundled_copy(tmp_path, flags, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "raw", *flags)
    assert not (tmp_path / "raw").exists()


def test_the_command_line_is_quick_and_hides_passwords(tmp_path, server):
    mirror = serve(server).replace("//", "//me:secret@")
    code = (
        "import sys, download; from aevb.plumbing import cli; sys.argv[0] = 'download.py'\n"
        "cli.run(download.main, download.__doc__)\n"
        "assert not {'torch', 'torchvision', 'pandas'} & set(sys.modules)"  # slow to import
    )

    def command(*flags: object) -> subprocess.CompletedProcess[str]:
        """The stage as a user runs it."""
        words = [*map(str, flags), "--output", "raw", "--log", "log", "--mirror", mirror]
        script, path = [sys.executable, "-c", code, *words], str(ROOT / "src")
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = command("--sha256", *sha256(SMALL))
    assert done.returncode == 0, done.stderr
    assert server.headers[0]["Authorization"] == "Basic bWU6c2VjcmV0"
    failed = command("--sha256", *["0" * 64] * 4)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(f"download: error: {FIRST}: not found (")
    assert "Traceback" not in failed.stderr
    log = (tmp_path / "log").read_text()
    assert f"download: {LAST} from {server.url}/{LAST}.gz" in log
    assert "secret" not in log + done.stderr + failed.stderr
