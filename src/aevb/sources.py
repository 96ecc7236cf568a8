"""Where the images come from, and how every byte of them is verified before it is written.

A source is a folder or a web address. Each file is taken from the first source that serves it
whole: the bundled copy, a mirror of the user's, the public mirrors. What a source sends is kept
small, timed and checksummed; why one fails is told in a few words and the next one is tried.
"""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from threading import Thread
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from aevb.data import DATASET_FILE, RAW_FILES, check_pair, parse_idx
from aevb.files import InputError, write_bytes, write_json
from aevb.plumbing import cli
from aevb.plumbing.params import Data, one_line

MIRROR_VARIABLE = "AEVB_MIRROR"
MNIST_SHA256 = {  # of the unpacked files
    RAW_FILES[0]: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    RAW_FILES[1]: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    RAW_FILES[2]: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    RAW_FILES[3]: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

LIMIT = 64 * 2**20  # bytes of a file, packed or not; the largest real one has 47 million
TIMEOUTS = (10.0, 30.0)  # seconds to connect; seconds without a byte
DEADLINE = 600.0  # seconds for a file from one address, or one that drips would never end
TRIES = 3
BACKOFF = 0.5  # seconds before the second retry, doubled for each one after it
REDIRECTS = 5

Place = Path | str  # a file, or its web address


class Unfit(Exception):
    """Why a place does not serve, in a few words."""


def download(data: Data, bundled: Path, output: Path) -> None:
    """Write the four IDX files and dataset.json into `output`, once all four are verified.

    Files there that are right already are left alone. `bundled` holds MNIST's .gz files.

    Raises:
        InputError: if no source has a file, or if the files are not images with their labels.
    """
    if len(data.sha256) not in (0, 4):
        raise InputError(f"--sha256 needs four checksums or none, not {len(data.sha256)}")
    found: dict[str, bytes] = {}
    missing: list[str] = []
    for file, digest in cli.progress(expected(data).items(), "download", len(RAW_FILES), "file"):
        found[file], place = _find(file, digest, places(data, file, digest, bundled, output))
        if place != output / file:
            missing.append(file)
        cli.log.info("download: %s from %s", file, _line(str(place)))
    for part in (RAW_FILES[:2], RAW_FILES[2:]):
        images, labels = (parse_idx(found[file], file) for file in part)
        check_pair(images, labels, " and ".join(part))

    # dataset.json comes last: a folder that has it is whole.
    (output / DATASET_FILE).unlink(missing_ok=True)
    for file in missing:
        write_bytes(output / file, found[file])
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in found.items()}
    write_json(output / DATASET_FILE, {"name": data.name, "sha256": digests})


def expected(data: Data) -> dict[str, str]:
    """Each file's digest: SHA-256 of its content or, if only that is published, MD5 of the .gz."""
    if data.sha256:
        return dict(zip(RAW_FILES, data.sha256, strict=True))
    return MNIST_SHA256 if data.name == "mnist" else published(data.name)[1]


def published(name: str) -> tuple[list[str], dict[str, str]]:
    """The public mirrors of a data set, https before http, and the MD5 of its .gz files."""
    from torchvision import datasets  # here, since it takes seconds to import

    classes = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
    known = getattr(datasets, classes[name])
    secure = [re.sub("^http:", "https:", mirror) for mirror in known.mirrors]
    digests = {file.removesuffix(".gz"): md5 for file, md5 in known.resources}
    return list(dict.fromkeys([*secure, *known.mirrors])), digests


def places(data: Data, file: str, digest: str, bundled: Path, output: Path) -> Iterator[Place]:
    """Where a file may be found, best first; public addresses are looked up only when needed."""
    mirrors = (os.environ.get(MIRROR_VARIABLE, ""), data.mirror)
    asked = [place for mirror in mirrors for place in _in_mirror(mirror, file)]
    # An MD5 is of the .gz: it says nothing about the unpacked file of an earlier run.
    kept = output / file if len(digest) == 64 else None
    shipped = bundled / f"{file}.gz" if data.name == "mnist" else None
    # Who gives checksums of their own means a mirror of their own.
    order = [kept, *asked, shipped] if data.sha256 else [kept, shipped, *asked]
    for place in dict.fromkeys(order):
        if place is not None and (place in asked or os.path.exists(place)):
            yield place
    if data.name != "mnist" or digest == MNIST_SHA256[file]:
        yield from (f"{mirror}{file}.gz" for mirror in published(data.name)[0])


def _in_mirror(mirror: str, file: str) -> list[Place]:
    """A file's address in a mirror; in a folder it may be packed or not."""
    if mirror in ("", "none"):
        return []
    if scheme := re.match(r"([A-Za-z][\w+.-]+):", mirror):  # a single letter is a Windows drive
        if scheme[1].lower() not in ("http", "https"):
            raise InputError(f"mirror {_line(mirror)}: should be a folder, http:// or https://")
        return [f"{mirror.rstrip('/')}/{file}.gz"]
    folder = Path(os.path.expanduser(mirror))  # unlike Path's own, it leaves ~nobody as it is
    both: list[Place] = [folder / name for name in (f"{file}.gz", file)]
    return [place for place in both if os.path.exists(place)] or both[:1]


def _find(file: str, digest: str, candidates: Iterator[Place]) -> tuple[bytes, Place]:
    """The verified content from the first place that has it, and that place."""
    failures = []
    for place in candidates:
        try:
            return verified(read(place), digest), place
        except (Unfit, OSError, HTTPError, ValueError) as error:
            failures.append(_line(f"{place}: {_reason(error)}"))
            cli.log.warning("download: %s", failures[-1])
    raise InputError(
        f"{file}: found nowhere ({'; '.join(failures) or 'no source to try'}); set data.mirror or "
        f"{MIRROR_VARIABLE} to a folder or web address that has it as {file}.gz"
    )


def verified(raw: bytes, digest: str) -> bytes:
    """The unpacked content, if it is what the digest says."""
    content = unpack(raw)
    if len(digest) == 64:
        name, found = "SHA-256", hashlib.sha256(content).hexdigest()
    else:
        name, found = "MD5 of the .gz", hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != digest:
        raise Unfit(f"wrong checksum ({name} is {found[:12]}…, should be {digest[:12]}…)")
    return content


def unpack(raw: bytes) -> bytes:
    """The content of a .gz file, or of an IDX file as it is, of at most LIMIT bytes."""
    if raw.startswith(b"\x00\x00\x08"):
        return raw
    if not raw.startswith(b"\x1f\x8b"):
        kind = "a web page" if raw.lstrip().startswith(b"<") else "neither gzip nor IDX"
        raise Unfit(kind if raw else "empty")
    try:
        with gzip.open(BytesIO(raw)) as file:
            content = file.read(LIMIT + 1)
    except EOFError:
        raise Unfit("truncated") from None
    except (OSError, zlib.error) as error:
        raise Unfit(f"damaged gzip ({error})") from None
    if len(content) > LIMIT:
        raise Unfit(f"unpacks to more than {LIMIT} bytes")
    return content


def read(place: Place) -> bytes:
    """What lies at a place, at most LIMIT bytes of it."""
    if isinstance(place, str):
        return _within(DEADLINE, lambda: _get(place))
    if not place.is_file():
        raise Unfit("no such file")
    with place.open("rb") as file:
        return _limited(iter(lambda: file.read(2**20), b""))


def _limited(chunks: Iterator[bytes]) -> bytes:
    """The chunks as one, if they are not more than LIMIT bytes."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > LIMIT:
            raise Unfit(f"larger than {LIMIT} bytes")
    return bytes(content)


def _within(seconds: float, work: Callable[[], bytes]) -> bytes:
    """The result of `work`, done in a thread that is left behind when it takes too long.

    Only that bounds all of it: name look-up, headers that drip, redirects, retries.
    """
    outcome: Future[bytes] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        raise Unfit(f"not done in {seconds:g} s") from None


class _Session(requests.Session):
    """A session that leaves redirects to us: requests reads their bodies without a limit."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No redirect that requests should know of."""


def _get(url: str) -> bytes:
    """The body of a web address, as it was sent."""
    retry = Retry(
        TRIES - 1,
        status_forcelist=(500, 502, 503, 504),
        backoff_factor=BACKOFF,
        raise_on_status=False,
        respect_retry_after_header=False,  # a server may ask for hours
    )
    with _Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        session.headers["Accept-Encoding"] = "identity"
        for _ in range(REDIRECTS + 1):
            with session.get(url, stream=True, timeout=TIMEOUTS) as response:
                if response.status_code == 200:
                    return _limited(response.raw.stream(2**16, decode_content=False))
                if not response.is_redirect:
                    raise Unfit(f"the server answers {response.status_code}")
                target = urljoin(url, response.headers["location"])
                if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                    raise Unfit("redirects from https to an insecure address")
                url = target
    raise Unfit("too many redirects")


def _line(text: str) -> str:
    """Text as it may stand in a log: no user name or password, nothing that moves the cursor."""
    return one_line(re.sub(r"//[^/@\s]*@", "//", text))


def _reason(error: BaseException) -> str:
    """The first cause of an error: under requests' words lies what the system said."""
    while not isinstance(error, Unfit) and isinstance(error.__context__, OSError | HTTPError):
        error = error.__context__
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
