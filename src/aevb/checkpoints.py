"""Checkpoints of a training: outside every engine's outputs, so that neither deletes them.

A file is named by a hash of everything that determines the run; another run never finds it.
"""

import hashlib
import json
import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aevb.errors import InputError
from aevb.files import Arrays, read_tensors, write_tensors

log = logging.getLogger("aevb")


class Interrupted(Exception):
    """A signal asked the process to stop; the number says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run_key(determinants: Mapping[str, Any]) -> str:
    """The name of a run's checkpoint: a hash of all that determines its bytes."""
    text = json.dumps(determinants, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Checkpoint:
    """The checkpoint of one run, written every `seconds` and when a signal asks to stop."""

    def __init__(self, folder: Path, key: str, seconds: float) -> None:
        self.path = folder / f"{key}.safetensors"
        self.key = key
        self.seconds = seconds
        self.written = time.monotonic()
        self.signal: int | None = None

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The saved state, or None where there is none that can be used."""
        if not self.path.exists():
            return None
        try:
            arrays, about = read_tensors(self.path, "checkpoint")
        except InputError as error:
            log.warning("checkpoint ignored, training starts afresh: %s", error)
            return None
        if about.get("key") != self.key:
            log.warning("%s: checkpoint of another run, training starts afresh", self.path)
            return None
        return arrays, {name: value for name, value in about.items() if name != "key"}

    def due(self) -> bool:
        """Whether it is time to write."""
        return self.signal is not None or time.monotonic() - self.written > self.seconds

    def save(self, arrays: Arrays, about: Mapping[str, Any]) -> None:
        """Write the state.

        Raises:
            Interrupted: afterwards, if a signal has asked to stop.
        """
        write_tensors(self.path, "checkpoint", arrays, {**about, "key": self.key})
        self.written = time.monotonic()
        if self.signal is not None:
            raise Interrupted(self.signal)

    def remove(self) -> None:
        """Remove the file, when the run's results are written."""
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
