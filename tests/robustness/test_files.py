"""Files are written atomically, with the same bytes for the same content, and read with one-line
errors.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from aevb.files import (
    FORMAT,
    InputError,
    atomic,
    read_bytes,
    read_csv,
    read_json,
    read_tensors,
    write_bytes,
    write_csv,
    write_json,
    write_tensors,
)
from graph import ROOT

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


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_atomic_replaces_the_file_and_makes_its_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    for content in ("first", "second"):
        with atomic(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert names(tmp_path) == ["new", "new/folder", "new/folder/file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_keeps_the_old_file_if_the_block_fails(tmp_path, error):
    (tmp_path / "file").write_text("old")

    def fail() -> None:
        with atomic(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "file"):
        pass  # writes nothing
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_bytes(path, b"new")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_json_has_one_form(tmp_path):
    path = tmp_path / "file.json"
    content = {"b": 1 / 3, "a": 50, "word": "x", "large": -123456.789, "small": 1.23456789e-7}
    for order in (content, dict(reversed(content.items()))):
        write_json(path, order)
        assert path.read_text() == (
            '{\n  "a": 50,\n  "b": 0.333333,\n  "large": -123457.0,\n  "small": 1.23457e-07,\n'
            '  "word": "x"\n}\n'
        )
    assert read_json(path) == json.loads(path.read_text())
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "other.json", {"elbo": value})
    assert names(tmp_path) == ["file.json"]


def test_csv_keeps_eight_digits_and_nan(tmp_path):
    path = tmp_path / "file.csv"
    write_csv(path, ("epoch", "elbo"), [[1, -104.123456789], [2, float("nan")]])
    assert path.read_bytes() == b"epoch,elbo\n1,-104.12346\n2,\n"
    first, second = read_csv(path)
    assert first == {"epoch": 1, "elbo": -104.12346}
    assert second["epoch"] == 2
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


def test_tensors_have_the_same_bytes_in_every_process(tmp_path):
    program = """
import sys
from pathlib import Path
import numpy as np
from aevb.files import write_tensors
names = {str(number) for number in range(20)}
arrays = {name: np.full(3, int(name), np.float32) for name in names}
metadata = {name: int(name) for name in names}
write_tensors(Path(sys.argv[1]), "model", arrays, metadata)
"""
    contents = set()
    for seed in ("0", "1", "2"):
        path = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "src")}
        subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_all_metadata_is_in_one_key(tensors):
    """safetensors writes several keys in random order."""
    with safe_open(tensors, framework="numpy") as file:
        (text,) = file.metadata().values()
    metadata = json.loads(text)
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {**METADATA, "kind": "model", "format": FORMAT}
    assert list(metadata) == sorted(metadata)


def safetensors_file(path: Path, metadata: object, dtype: str = "U8") -> Path:
    """A safetensors file with one array of one or two bytes and any metadata."""
    size = 2 if dtype == "BF16" else 1
    header: dict[str, object] = {"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}
    if metadata is not None:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    return path


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"aevb": json.dumps({"kind": "model", "format": FORMAT + 1})}, f"format {FORMAT + 1}"),
        ({"aevb": json.dumps({"kind": "model", "format": FORMAT})}, "checksum"),
        ({"aevb": '{"kind": "model"}'}, "format None"),
        ({"aevb": '{"kind": "split", "format": 1}'}, "is a split file"),
        ({"aevb": '{"format": 1}'}, "and is not"),
        ({"aevb": "[1]"}, "and is not"),
        ({"aevb": "{"}, "damaged or foreign"),
        ({"format": "pt"}, "and is not"),
        (None, "and is not"),
    ],
)
def test_foreign_tensors_are_refused(tmp_path, metadata, words):
    assert words in refusal(read_tensors, safetensors_file(tmp_path / "x", metadata), "model")
    if metadata is None:  # types that numpy does not have
        for dtype in ("BF16", "F8_E4M3"):
            refusal(read_tensors, safetensors_file(tmp_path / "x", metadata, dtype), "model")


def test_torn_tensors_are_refused(tensors):
    content = tensors.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]:
        tensors.write_bytes(content[:length])
        assert "damaged or foreign" in refusal(read_tensors, tensors, "model")
    tensors.write_bytes(content + b"more")
    refusal(read_tensors, tensors, "model")


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
    "arrays",
    [
        {**ARRAYS, "b": ARRAYS["b"].reshape(3, 2)},
        {**ARRAYS, "b": ARRAYS["b"].view(np.uint64)},
        {"a": ARRAYS["a"], "c": ARRAYS["b"], "empty": ARRAYS["empty"]},
        {"a": ARRAYS["a"], "b": ARRAYS["b"]},
    ],
    ids=["shape", "type", "name", "missing array"],
)
def test_the_checksum_covers_more_than_the_bytes(tensors, arrays):
    with safe_open(tensors, framework="numpy") as file:
        metadata = file.metadata()
    tensors.write_bytes(save(arrays, metadata=metadata))
    assert "checksum" in refusal(read_tensors, tensors, "model")


GARBAGE = {
    read_tensors: [b"garbage", bytes(100), b"PK\x03\x04" + b"x" * 100],
    read_json: [b"", b"garbage", b"\xff\xfe\x00", b'{"a": ', b"[1, 2]"],
    read_csv: [b"", b"a,b\n", b"a,b\n1,x\n", b"a,b\n1\n", b"a,b\n1,2,3\n", b"a\n\xff\n"],
    read_bytes: [],
}


@pytest.mark.parametrize("read", GARBAGE)
def test_missing_files_folders_and_garbage_are_refused(tmp_path, read):
    kind = ["model"] if read is read_tensors else []
    missing = refusal(read, tmp_path / "missing", *kind)
    assert "no such file; run the stage that makes it first" in missing
    refusal(read, tmp_path, *kind)
    for content in GARBAGE[read]:
        (tmp_path / "file").write_bytes(content)
        refusal(read, tmp_path / "file", *kind)
