"""Files: atomic, with the same bytes for the same content, read with one-line errors."""

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
    write_text,
)

SRC = Path(__file__).resolve().parent.parent / "src"
ARRAYS = {
    "b": np.arange(6, dtype=np.int64).reshape(2, 3),
    "a": np.array([0.5, -1], np.float32),
    "empty": np.zeros((0, 28, 28), np.uint8),
}
ABOUT = {"seed": 3, "name": "mnist", "nested": {"x": [1, 2.5, None, "é"]}}


def refused(read, *arguments) -> str:
    """The one line that an unreadable file is told in."""
    with pytest.raises(InputError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert str(arguments[0]) in message
    return message


def everything(folder: Path) -> list[str]:
    """All that lies in a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_atomic_replaces_the_file_and_makes_its_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    for content in ("first", "second"):
        with atomic(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert everything(tmp_path) == ["new", "new/folder", "new/folder/file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("written", [True, False])
def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path, error, written):
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as temporary:
            if written:
                temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["file"]


def test_atomic_needs_a_file_from_its_block(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "file"):
        pass
    assert everything(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file"]


def test_text_is_utf8_with_unix_line_ends(tmp_path):
    write_text(tmp_path / "file", "é\n")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\n"


def test_json_has_one_form(tmp_path):
    path = tmp_path / "file.json"
    content = {"b": 1 / 3, "a": 50, "word": "x", "large": -123456.789, "small": 1.23456789e-7}
    write_json(path, content)
    assert path.read_text() == (
        '{\n  "a": 50,\n  "b": 0.333333,\n  "large": -123457.0,\n  "small": 1.23457e-07,\n'
        '  "word": "x"\n}\n'
    )
    write_json(tmp_path / "other.json", dict(reversed(content.items())))
    assert (tmp_path / "other.json").read_bytes() == path.read_bytes()
    assert read_json(path) == json.loads(path.read_text())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_holds_numbers_only(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"elbo": value})
    assert everything(tmp_path) == []


def test_csv_keeps_eight_digits_and_nan(tmp_path):
    path = tmp_path / "file.csv"
    write_csv(path, ("epoch", "elbo"), [[1, -104.123456789], [2, float("nan")]])
    assert path.read_bytes() == b"epoch,elbo\n1,-104.12346\n2,\n"
    first, second = read_csv(path)
    assert first == {"epoch": 1, "elbo": -104.12346}
    assert second["epoch"] == 2
    assert np.isnan(second["elbo"])


def test_tensors_come_back(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, "model", ARRAYS, ABOUT)
    arrays, metadata = read_tensors(path, "model")
    assert metadata == ABOUT
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_tensors_are_written_in_c_order(tmp_path):
    """safetensors writes the buffer of an array as it lies, whatever its strides."""
    array = np.arange(6).reshape(2, 3)
    write_tensors(tmp_path / "file", "model", {"x": array.T, "y": array[:, ::2]}, {})
    arrays, _ = read_tensors(tmp_path / "file", "model")
    np.testing.assert_array_equal(arrays["x"], array.T)
    np.testing.assert_array_equal(arrays["y"], array[:, ::2])


def test_tensors_have_the_same_bytes_in_every_process(tmp_path):
    program = """
import sys
from pathlib import Path
import numpy as np
from aevb.files import write_tensors
names = {str(number) for number in range(20)}
arrays = {name: np.full(3, int(name), np.float32) for name in sorted(names)}
about = {name: int(name) for name in names}
write_tensors(Path(sys.argv[1]), "model", arrays, about)
"""
    contents = set()
    for seed in ("0", "1", "2"):
        path = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(SRC)}
        subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_tensors_say_all_in_one_metadata_key(tmp_path):
    path = tmp_path / "file"
    write_tensors(path, "model", ARRAYS, ABOUT)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == ["aevb"]
    metadata = json.loads(header["__metadata__"]["aevb"])
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {**ABOUT, "kind": "model", "format": 2}
    assert list(metadata) == sorted(metadata)


def tensor_file(path: Path, metadata: object) -> Path:
    """A safetensors file with one array and any metadata."""
    header: dict[str, object] = {"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    if metadata is not None:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\1")
    return path


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"aevb": '{"kind": "model", "format": 3}'}, "format 3"),
        ({"aevb": '{"kind": "model", "format": 1}'}, "format 1"),
        ({"aevb": '{"kind": "model", "format": 2}'}, "checksum"),
        ({"aevb": '{"kind": "model"}'}, "format None"),
        ({"aevb": '{"kind": "split", "format": 1}'}, "is a split file"),
        ({"aevb": '{"format": 1}'}, "and is not"),
        ({"aevb": "[1]"}, "and is not"),
        ({"aevb": "{"}, "damaged or foreign"),
        ({"format": "pt"}, "and is not"),
        (None, "and is not"),
    ],
)
def test_tensors_of_another_making_are_refused(tmp_path, metadata, words):
    assert words in refused(read_tensors, tensor_file(tmp_path / "file", metadata), "model")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_foreign_tensors_that_numpy_has_no_type_for_are_refused(tmp_path, dtype):
    path = tmp_path / "file"
    size = 2 if dtype == "BF16" else 1
    header = {"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    refused(read_tensors, path, "model")


def test_torn_tensors_are_refused_wherever_they_end(tmp_path):
    path = tmp_path / "file"
    write_tensors(path, "model", ARRAYS, ABOUT)
    content = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        assert "damaged or foreign" in refused(read_tensors, path, "model")
    path.write_bytes(content + b"more")
    refused(read_tensors, path, "model")
    path.write_bytes(content)
    read_tensors(path, "model")


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path):
    """But for those of JSON that say the same, as the E in \\u00E9."""
    path = tmp_path / "file"
    write_tensors(path, "model", ARRAYS, ABOUT)
    content = path.read_bytes()
    harmless = []
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            arrays, metadata = read_tensors(path, "model")
        except InputError:
            refused(read_tensors, path, "model")
        else:
            harmless.append(bit)
            assert metadata == ABOUT
            assert all(array.tobytes() == ARRAYS[name].tobytes() for name, array in arrays.items())
    assert len(harmless) < 8


@pytest.mark.parametrize(
    "arrays",
    [
        {**ARRAYS, "b": ARRAYS["b"].reshape(3, 2)},
        {**ARRAYS, "b": ARRAYS["b"].view(np.uint64)},
        {"a": ARRAYS["a"], "c": ARRAYS["b"], "empty": ARRAYS["empty"]},
        {"a": ARRAYS["a"], "b": ARRAYS["b"]},
    ],
    ids=["shape", "type", "name", "without an array"],
)
def test_the_checksum_is_of_more_than_the_bytes(tmp_path, arrays):
    write_tensors(tmp_path / "file", "model", ARRAYS, ABOUT)
    with safe_open(tmp_path / "file", framework="numpy") as file:
        metadata = file.metadata()
    (tmp_path / "other").write_bytes(save(arrays, metadata=metadata))
    assert "checksum" in refused(read_tensors, tmp_path / "other", "model")


READERS = pytest.mark.parametrize(
    ("read", "arguments"),
    [(read_tensors, ["model"]), (read_json, []), (read_csv, []), (read_bytes, [])],
    ids=["tensors", "json", "csv", "bytes"],
)


@READERS
def test_a_missing_file_is_told_with_what_to_do(tmp_path, read, arguments):
    message = refused(read, tmp_path / "missing", *arguments)
    assert "no such file; run the stage that makes it first" in message


@READERS
def test_a_folder_is_no_file(tmp_path, read, arguments):
    refused(read, tmp_path, *arguments)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe\x00", b'{"a": ', b"[1, 2]"])
def test_garbage_is_no_json_object(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    refused(read_json, path)


@pytest.mark.parametrize("content", [b"a,b\n1,x\n", b"a,b\n1,2,3\n", b"a\n\xff\n"])
def test_garbage_is_no_table_of_numbers(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    refused(read_csv, path)


@pytest.mark.parametrize("content", [b"garbage", b"\x00" * 100, b"PK\x03\x04" + b"x" * 100])
def test_garbage_is_no_tensor_file(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert "damaged or foreign" in refused(read_tensors, path, "model")
