"""Download the four files of a data set, check every byte of them and unpack them.

Each file is taken from the first source that has it: the output folder, the bundled copy of MNIST,
the mirror in the environment variable AEVB_MIRROR, the mirror in data.mirror, the public mirrors.
If data.sha256 is given, the user's mirrors are tried before the bundled copy.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from aevb.data import DATASET_FILE, RAW_FILES, check_pair, parse_idx
from aevb.datasets import DATASETS
from aevb.files import InputError, write_bytes, write_json
from aevb.plumbing import cli
from aevb.plumbing.checking import one_line
from aevb.plumbing.params import Data

URL = ("http://", "https://")


def main(
    output: Annotated[Path, "folder to write the IDX files into"],
    data: Data,
    bundled: Annotated[Path, "folder with MNIST's .gz files"] = Path("data/mnist"),
) -> None:
    """Find and check the four files, then write them and, as the last file, dataset.json."""
    known = data.sha256 or DATASETS[data.name].sha256
    digests = known or [md5 for _, md5 in published(data.name).resources]
    found = {}
    for file, digest in zip(RAW_FILES, digests, strict=True):
        found[file] = find(file, digest, sources(data, file, digest, bundled, output))
    for part in (RAW_FILES[:2], RAW_FILES[2:]):
        images, labels = (parse_idx(found[file], file) for file in part)
        check_pair(images, labels, " and ".join(part))

    (output / DATASET_FILE).unlink(missing_ok=True)
    for file, content in found.items():
        write_bytes(output / file, content)
    sha256 = {file: hashlib.sha256(content).hexdigest() for file, content in found.items()}
    write_json(output / DATASET_FILE, {"name": data.name, "sha256": sha256})


def published(name: str) -> Any:
    """The class of torchvision that knows a data set's `mirrors` and `resources` (MD5 of .gz)."""
    from torchvision import datasets  # here, since it takes seconds to import

    return getattr(datasets, DATASETS[name].torchvision)


def sources(data: Data, file: str, digest: str, bundled: Path, output: Path) -> Iterator[str]:
    """The paths and URLs where a file may be, in the order in which they are tried."""
    mirrors = []
    for mirror in (os.environ.get("AEVB_MIRROR") or "none", data.mirror):
        place = os.path.expanduser(mirror).rstrip("/")
        if mirror.startswith(URL):
            mirrors.append(f"{place}/{file}.gz")
        elif mirror != "none":
            if not os.path.isdir(place):
                raise InputError(
                    f"mirror {mirror}: neither an existing folder nor a URL; correct data.mirror "
                    "or AEVB_MIRROR"
                )
            mirrors += [f"{place}/{file}.gz", f"{place}/{file}"]
    if len(digest) == 64 and (output / file).exists():  # MD5 is of the .gz, not of this file
        yield str(output / file)
    shipped = [f"{bundled}/{file}.gz"] if data.name == "mnist" else []
    yield from [*mirrors, *shipped] if data.sha256 else [*shipped, *mirrors]
    if DATASETS[data.name].torchvision and not data.sha256:  # official files
        yield from (f"{mirror}{file}.gz" for mirror in published(data.name).mirrors)


def find(file: str, digest: str, sources: Iterator[str]) -> bytes:
    """The content of a file from the first source that has it unchanged."""
    failures = []
    for source in sources:
        try:
            content = checked(read(source), digest)
            cli.log.info("download: %s from %s", file, source)
            return content
        except (OSError, EOFError, ValueError, zlib.error) as error:
            cause: BaseException = error
            while cause.__context__:  # requests wraps it in several other errors
                cause = cause.__context__
            reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            failures.append(one_line(f"{source}: {reason}"))
            cli.log.warning("download: %s", failures[-1])
    raise InputError(
        f"{file}: not found ({'; '.join(failures) or 'no source is known'}); set data.mirror or "
        f"AEVB_MIRROR to a folder or a URL that has {file}.gz"
    )


def read(source: str) -> bytes:
    """The bytes of a file on this machine or on the web."""
    if not source.startswith(URL):
        if Path(source).is_fifo():
            raise OSError("a pipe, should be a file")  # would wait for its writer
        return Path(source).read_bytes()
    import pooch

    pooch.get_logger().setLevel("WARNING")  # its other messages show the password in a URL
    address, _, name = source.rpartition("/")
    with TemporaryDirectory() as folder, cli.progress("download", 1, "byte") as bar:
        web = pooch.create(folder, address, registry={name: None}, retry_if_failed=2)
        downloader = pooch.HTTPDownloader(bar, 2**16, timeout=(10, 30))  # to connect, without data
        return Path(web.fetch(name, downloader=downloader)).read_bytes()


def checked(raw: bytes, digest: str) -> bytes:
    """The content of an IDX file or of its .gz, if its SHA-256 or the MD5 of the .gz is right."""
    content = raw if raw.startswith(b"\x00\x00\x08") else gzip.decompress(raw)
    sha256 = hashlib.sha256(content).hexdigest()
    if digest not in (sha256, hashlib.md5(raw, usedforsecurity=False).hexdigest()):
        raise ValueError(
            f"wrong checksum: its SHA-256 is {sha256}; to use files of your own, list the SHA-256 "
            "of all four in data.sha256"
        )
    return content


if __name__ == "__main__":
    cli.run(main, __doc__)
