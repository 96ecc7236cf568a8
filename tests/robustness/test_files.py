"""Files are written atomically, with the same bytes for the same content, and read with one-line
errors.
"""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from aevb.files import (
    FORMAT,
    InputError,
    atomic,
    read_bytes,
    read_csv,
    read_json,
    read_tensors,
    write_csv,
    write_json,
    write_tensors,
    write_text,
)

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save
from safetensors.torch import save as save_by_torch

ARRAYS = {
    "b": np.arange(6, dtype=np.int64).reshape(2, 3),
    "a": np.array([0.5, -1], np.float32),
    "empty": np.zeros((0, 28, 28), np.uint8),
}
METADATA = {"seed": 3, "name": "mnist", "nested": {"x": [1, 2.5, None, "é"]}}


@pytest.fixture
def tensors(tmp_path) -> Path:
    """A file with the arrays and the metadata above."""
    write_tensors(tmp_path / "file", "model", ARRAYS, METADATA)
    return tmp_path / "file"


def refusal(read, *arguments) -> str:
    """The one-line error for a file that cannot be read."""
    with pytest.raises(InputError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert str(arguments[0]) in message
    return message


def test_atomic_replaces_the_file_and_makes_its_folders(tmp_path):
    """Simultaneous writers do not disturb each other: the last one to finish wins."""
    path = tmp_path / "new" / "folder" / "file"
    with atomic(path) as outer:
        outer.write_text("outer")
        with atomic(path) as inner:
            inner.write_text("inner")
            assert not path.exists()
        assert path.read_text() == "inner"
    assert path.read_text() == "outer"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_keeps_the_old_file_if_the_block_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with suppress(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_removes_what_killed_processes_left(tmp_path):
    """A file that another process still writes is locked, whatever node it is on."""
    path = tmp_path / "file"
    left, in_use = (tmp_path / f".file.{name}.tmp" for name in ("left", "in-use"))
    left.write_text("half")
    with in_use.open("w") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        write_text(path, "whole")
    assert set(tmp_path.iterdir()) == {path, in_use}


def test_a_file_with_the_same_content_is_left_as_it_is(tmp_path):
    """So a stage that outlives its engine does not make what was made of its outputs outdated."""
    path = tmp_path / "file"
    for content, time in {"old": 2, "new": 1}.items():
        path.write_text("old")
        os.utime(path, (2, 2))
        write_text(path, content)
        assert path.read_text() == content
        assert (path.stat().st_mtime == 2) == (time == 2)


def test_json_has_one_form(tmp_path):
    path = tmp_path / "file.json"
    content = {"b": 1 / 3, "a": 50, "word": "x", "large": -123456.789, "small": 1.23456789e-7}
    write_json(path, content)
    assert path.read_text() == (
        '{\n  "a": 50,\n  "b": 0.333333,\n  "large": -123457.0,\n  "small": 1.23457e-07,\n'
        '  "word": "x"\n}\n'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"elbo": float("nan")})
    assert read_json(path) == json.loads(path.read_text())


def test_csv_keeps_eight_digits_and_nan(tmp_path):
    path = tmp_path / "file.csv"
    write_csv(path, ("epoch", "elbo"), [[1, -104.123456789], [2, float("nan")]])
    assert path.read_bytes() == b"epoch,elbo\n1,-104.12346\n2,\n"
    first, second = read_csv(path)
    assert first == {"epoch": 1, "elbo": -104.12346}
    assert np.isnan(second["elbo"])


def test_tensors_are_read_back(tensors):
    """Whatever the strides: safetensors writes the buffer of an array as it is in memory."""
    array = np.arange(6).reshape(2, 3)
    strided = {**ARRAYS, "transposed": array.T, "skipping": array[:, ::2]}
    write_tensors(tensors, "model", strided, METADATA)
    arrays, metadata = read_tensors(tensors, "model")
    assert metadata == METADATA
    assert arrays.keys() == strided.keys()
    for name, array in strided.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"aevb": json.dumps({"kind": "model", "format": FORMAT + 1})}, f"format {FORMAT + 1}"),
        ({"aevb": json.dumps({"kind": "model", "format": FORMAT})}, "checksum"),
        ({"aevb": '{"kind": "split", "format": 1}'}, "is a split file"),
        ({"aevb": "[1]"}, "and is not"),
        ({"aevb": "{"}, "damaged or foreign"),
        ({"format": "pt"}, "and is not"),
        (None, "and is not"),
    ],
)
def test_foreign_tensors_are_refused(tmp_path, metadata, words):
    path = tmp_path / "file"
    path.write_bytes(save({"x": np.zeros(1)}, metadata))
    assert words in refusal(read_tensors, path, "model")
    path.write_bytes(save_by_torch({"x": torch.zeros(1, dtype=torch.bfloat16)}, metadata))
    refusal(read_tensors, path, "model")  # a type that numpy does not have


def test_tensors_of_another_length_are_refused(tensors):
    content = tensors.read_bytes()
    lengths = [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]
    for other in (*(content[:length] for length in lengths), content + b"more"):
        tensors.write_bytes(other)
        assert "damaged or foreign" in refusal(read_tensors, tensors, "model")


def test_a_file_of_another_run_is_refused(tmp_path):
    for name in ("k3-seed1", "any", "k3-seed0"):
        path = tmp_path / f"{name}.safetensors"
        write_tensors(path, "model", ARRAYS, {"latent_dim": 3, "seed": 1})
        if name != "k3-seed0":
            read_tensors(path, "model")
    assert "the model file of k3-seed1" in refusal(read_tensors, path, "model")


def test_a_flipped_bit_in_any_byte_is_refused(tensors):
    """Except in JSON that means the same, as the E in \\u00E9."""
    content = tensors.read_bytes()
    harmless = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        tensors.write_bytes(damaged)
        try:
            arrays, metadata = read_tensors(tensors, "model")
        except InputError:
            continue
        harmless += 1
        assert metadata == METADATA
        assert all(array.tobytes() == ARRAYS[name].tobytes() for name, array in arrays.items())
    assert harmless < 4


@pytest.mark.parametrize(
    "other",
    [{"b": ARRAYS["b"].reshape(3, 2)}, {"b": ARRAYS["b"].view(np.uint64)}, {"c": ARRAYS["b"]}],
    ids=["shape", "type", "name"],
)
def test_the_checksum_covers_more_than_the_bytes(tensors, other):
    with safe_open(tensors, framework="numpy") as file:
        metadata = file.metadata()
    same = {name: array for name, array in ARRAYS.items() if name != "b"}
    tensors.write_bytes(save({**same, **other}, metadata))
    assert "checksum" in refusal(read_tensors, tensors, "model")


GARBAGE = {
    read_tensors: [b"garbage", bytes(100), b"PK\x03\x04" + b"x" * 100],
    read_json: [b"", b"garbage", b"\xff\xfe\x00", b'{"a": ', b"[1, 2]"],
    read_csv: [b"", b"a,b\n", b"a,b\n1,x\n", b"a,b\n1\n", b"a,b\n1,2,3\n", b"a\n\xff\n"],
    read_bytes: [],
}


@pytest.mark.parametrize("read", GARBAGE)
def test_missing_files_folders_pipes_and_garbage_are_refused(tmp_path, read):
    kind = ["model"] if read is read_tensors else []
    missing = refusal(read, tmp_path / "missing", *kind)
    assert "no such file; run the stage that makes it first" in missing
    refusal(read, tmp_path, *kind)
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for its writer
    assert "a pipe, should be a file" in refusal(read, tmp_path / "pipe", *kind)
    for content in GARBAGE[read]:
        (tmp_path / "file").write_bytes(content)
        refusal(read, tmp_path / "file", *kind)
