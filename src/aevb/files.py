"""Reading and writing of results: atomic, with the same bytes for the same content.

Tensors are stored as safetensors, never as pickle, with one metadata key, `aevb`. It holds JSON:
the kind of file, the version of its format, all that is needed to use the file alone, the SHA-256
of the files that it was made from or with, and a checksum, which safetensors lacks. One key is used
because several are written in random order.
"""

import csv
import fcntl
import filecmp
import glob
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

FORMAT = 4
REPAIR = "delete it and run `snakemake --cores all` or `dvc repro`"

Arrays = dict[str, NDArray[Any]]


class InputError(Exception):
    """A wrong input: its message is one line that says what is wrong, where, and what to do."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` if the block succeeds and removed otherwise.

    A reader sees either the old file or the complete new one. A file that has the same content
    already is left as it is, with its time. Missing folders are created. Temporary files of
    processes that were killed are removed: they are locked by their writers, on any node.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for half in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), half.open("r+b") as left:  # in use, of another user, just removed
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            half.unlink()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as writer:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield temporary
        if not (path.is_file() and filecmp.cmp(temporary, path, shallow=False)):
            os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically and make it durable."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, content: str) -> None:
    """Write text as UTF-8 with Unix line ends."""
    write_bytes(path, content.encode())


def as_json(content: Mapping[str, Any]) -> str:
    """An object as text: keys sorted, floats with six significant digits."""
    rounded = {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in content.items()
    }
    return json.dumps(rounded, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object in the form of `as_json`."""
    write_text(path, as_json(content))


def read_bytes(path: Path) -> bytes:
    """Read a whole file; InputError if it is missing or cannot be read."""
    content: bytes = _readable(path, path.read_bytes)
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits; InputError if it cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; InputError if the file is missing or is something else."""
    content = _readable(path, lambda: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object; run the stage that makes it")
    return content


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
    """Write a table of numbers with eight significant digits; nan becomes an empty field."""
    lines = [",".join(header)]
    lines += [",".join("" if isnan(value) else f"{value:.8g}" for value in row) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_csv(path: Path) -> list[dict[str, float]]:
    """Read what `write_csv` wrote, one dictionary per row; an empty field becomes nan.

    Raises:
        InputError: if the file is missing, has no rows, or contains anything but numbers.
    """

    def rows() -> list[dict[str, float]]:
        with path.open(newline="", encoding="utf-8") as file:
            header, first, *more = csv.reader(file)
            return [
                {key: float(value or "nan") for key, value in zip(header, row, strict=True)}
                for row in (first, *more)
            ]

    table: list[dict[str, float]] = _readable(path, rows)
    return table


def write_tensors(
    path: Path, kind: str, arrays: Arrays, metadata: Mapping[str, Any], **files: Path
) -> None:
    """Write arrays, with `metadata` (JSON values) in the one metadata key `aevb`.

    The SHA-256 of `files`, those that this one was made from or with, is added to
    `metadata["files"]`.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    described = {**metadata, "kind": kind, "format": FORMAT}
    if files:
        digests = {name: sha256(file) for name, file in files.items()}
        described["files"] = {**metadata.get("files", {}), **digests}
    text = json.dumps({**described, "sha256": _digest(contiguous, described)}, sort_keys=True)
    write_bytes(path, save(contiguous, metadata={"aevb": text}))


def _digest(arrays: Arrays, metadata: Mapping[str, Any]) -> str:
    """SHA-256 of arrays and metadata."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.data)
    return digest.hexdigest()


def read_tensors(path: Path, kind: str) -> tuple[Arrays, dict[str, Any]]:
    """Read the arrays and the metadata that `write_tensors` wrote.

    Raises:
        InputError: if the file is missing, damaged, or of another kind or version, or if it is
            named after another run, as `k3-seed0.safetensors`.
    """

    def content() -> tuple[Arrays, dict[str, Any]]:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("aevb", "{}"))
            if not isinstance(metadata, dict) or metadata.get("kind") != kind:
                return {}, metadata  # its arrays may have types that NumPy lacks
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118

    arrays, metadata = _readable(path, content)
    if not isinstance(metadata, dict) or metadata.get("kind") != kind:
        found = metadata.get("kind") if isinstance(metadata, dict) else None
        raise InputError(
            f"{path}: should be a {kind} file of this pipeline and is "
            f"{f'a {found} file' if found else 'not'}; name the right file, or {REPAIR}"
        )
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path}: written in format {metadata.get('format')}, this version reads {FORMAT}; "
            f"update the code, or {REPAIR}"
        )
    if metadata.pop("sha256", None) != _digest(arrays, metadata):
        raise InputError(f"{path}: damaged, its checksum is another; {REPAIR}")
    own = f"k{metadata.get('latent_dim')}-seed{metadata.get('seed')}"
    if re.fullmatch(r"k\d+-seed\d+", path.stem) and path.stem != own:
        raise InputError(f"{path}: is the {kind} file of {own}; {REPAIR}")
    return arrays, {key: metadata[key] for key in metadata if key not in ("kind", "format")}


def _readable(path: Path, read: Callable[[], Any]) -> Any:
    """The result of `read`; whatever makes a file unreadable becomes an InputError."""
    if path.is_fifo():
        raise InputError(f"{path}: a pipe, should be a file; {REPAIR}")  # would wait for its writer
    try:
        return read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that makes it first") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: damaged or foreign ({reason}); {REPAIR}") from None
