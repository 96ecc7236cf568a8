"""Checkpoints of a training, and locks that keep two processes from the same training.

Checkpoints are not outputs of a stage, because workflow engines delete the outputs of a failed
stage. The file name is a hash of everything that determines the run, so no other run finds it.
"""

import fcntl
import hashlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from aevb.files import Arrays, InputError, read_tensors, write_tensors

log = logging.getLogger("aevb")


class Interrupted(Exception):
    """A signal asked the process to stop; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def open_lock(path: Path) -> BinaryIO:
    """Open a file that is to be locked."""
    try:
        return path.open("ab+", buffering=0)
    except PermissionError:  # of another user; a file that is only read can be locked, too
        return path.open("rb", buffering=0)


def sign(lock: BinaryIO, more: str = "") -> None:
    """Write into a lock which process has it."""
    with suppress(OSError):  # on a full disk, or of another user
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}{more}".encode())


@contextmanager
def exclusive(path: Path, checkpoint: Path, seconds: float) -> Iterator[None]:
    """Lock a path: only one process at a time can be in such a block with the same path.

    While another process is in it, this one waits. The system releases the lock when a process
    dies, on any node. Missing folders are created.

    Args:
        path: what is locked.
        checkpoint: a file that this process renews in the block.
        seconds: how long to wait for a process that does not renew its own such file.

    Raises:
        InputError: if that time is over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    last: tuple[str, float] | None = None
    since = time.monotonic()
    while True:
        with open_lock(lock) as file:
            if _acquire(file, lock):
                try:
                    sign(file, f"\n{checkpoint.absolute()}")
                    yield
                    return
                finally:
                    with suppress(OSError):  # of another user
                        lock.unlink()
            file.seek(0)
            owner, _, renewed = file.read().decode().partition("\n")
        state = owner, 0.0
        with suppress(OSError):  # not written yet, or the training has just finished
            state = owner, os.stat(renewed).st_mtime
        if last is None:
            log.warning("%s: waiting for the training that is writing it (%s)", path, owner)
        if state != last:
            last, since = state, time.monotonic()
        elif time.monotonic() - since > seconds:
            raise InputError(
                f"{path}: another training is writing it ({owner}), but has written no checkpoint "
                f"for {seconds:.0f} s; stop it"
            )
        time.sleep(0.2)


def _acquire(lock: BinaryIO, path: Path) -> bool:
    """Whether this process now has the lock of an open file, which is still the one at `path`."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("%s: cannot be locked (%s); start no second training", path, error.strerror)
    return path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())


class Checkpoint:
    """The checkpoint of one run, written every `seconds` and when a signal asks to stop.

    Its name is a hash of `determinants`, JSON values that determine the result of the run. The
    state at the end of the training is kept under `name`, since an engine that was killed deletes
    the results and runs the stage again.
    """

    def __init__(self, folder: Path, name: str, determinants: Any, seconds: float) -> None:
        text = json.dumps(determinants, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self.path = folder / f"{self.key}.safetensors"
        self.finished = folder / f"{name}-finished.safetensors"
        self.seconds = seconds
        self.written = time.monotonic()
        self.signal: int | None = None

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The saved state, or None if there is none that can be used."""
        for path in (self.finished, self.path):
            if not path.exists():
                continue
            try:
                arrays, metadata = read_tensors(path, "checkpoint")
            except InputError as error:
                log.warning("checkpoint ignored, training restarts: %s", error)
                continue
            if metadata.pop("key", None) == self.key:
                return arrays, metadata
            if path == self.path:
                log.warning("%s: checkpoint of another run, training restarts", path)
        return None

    def due(self) -> bool:
        """Whether it is time to write."""
        return self.signal is not None or time.monotonic() - self.written > self.seconds

    def save(self, arrays: Arrays, metadata: Mapping[str, Any]) -> None:
        """Write the state.

        Raises:
            Interrupted: afterwards, if a signal has asked to stop.
        """
        write_tensors(self.path, "checkpoint", arrays, {**metadata, "key": self.key})
        self.written = time.monotonic()
        if self.signal is not None:
            raise Interrupted(self.signal)

    def finish(self, arrays: Arrays, metadata: Mapping[str, Any]) -> None:
        """Keep the last state until the next training with this `name`."""
        write_tensors(self.path, "checkpoint", arrays, {**metadata, "key": self.key})
        self.path.replace(self.finished)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within the block SIGTERM, SIGINT and SIGUSR1 ask for a checkpoint and a stop."""

        def ask(number: int, _: Any) -> None:
            self.signal = number

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        before = [signal.signal(number, ask) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
