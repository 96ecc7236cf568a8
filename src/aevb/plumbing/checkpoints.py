"""Checkpoints of a training, and locks that keep two processes from the same training.

Checkpoints are not outputs of a stage, because workflow engines delete the outputs of a failed
stage. The file name is a hash of everything that determines the run, so no other run finds it.
"""

import fcntl
import glob
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
from typing import Any

from aevb.files import Arrays, InputError, read_tensors, write_tensors

log = logging.getLogger("aevb")


class Interrupted(Exception):
    """A signal asked the process to stop; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lock a path: only one process at a time can be in such a block with the same path.

    The lock is released by the system when a process dies. Temporary files that a killed process
    left for `path` are removed. Missing folders are created.

    Raises:
        InputError: if another process has the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    try:
        opened = lock.open("ab+", buffering=0)
    except PermissionError:  # left by another user; a file that is only read can be locked, too
        opened = lock.open("rb", buffering=0)
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().decode() or "just started"
            raise InputError(
                f"{path}: another training is writing it ({owner}); wait for it or stop it first"
            ) from None
        except OSError as error:
            log.warning("%s: cannot be locked (%s); start no second training", path, error.strerror)
        if not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            raise InputError(f"{path}: another training has just finished it; run again")
        try:
            with suppress(OSError):  # on a full disk the lock works, but does not name its owner
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            for half in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                half.unlink(missing_ok=True)
            yield
        finally:
            lock.unlink(missing_ok=True)


class Checkpoint:
    """The checkpoint of one run, written every `seconds` and when a signal asks to stop.

    Its name is a hash of `determinants`, JSON values that determine the result of the run.
    """

    def __init__(self, folder: Path, determinants: Any, seconds: float) -> None:
        text = json.dumps(determinants, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self.path = folder / f"{self.key}.safetensors"
        self.seconds = seconds
        self.written = time.monotonic()
        self.signal: int | None = None

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The saved state, or None if there is none that can be used."""
        if not self.path.exists():
            return None
        try:
            arrays, metadata = read_tensors(self.path, "checkpoint")
        except InputError as error:
            log.warning("checkpoint ignored, training restarts: %s", error)
            return None
        if metadata.get("key") != self.key:
            log.warning("%s: checkpoint of another run, training restarts", self.path)
            return None
        return arrays, {name: value for name, value in metadata.items() if name != "key"}

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

    def remove(self) -> None:
        """Remove the file after the run's results have been written."""
        self.path.unlink(missing_ok=True)

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
