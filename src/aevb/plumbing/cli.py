"""What all stages share on the command line: flags, logs, progress, errors.

A stage is a script with explicit input and output paths and its section of params.yaml as flags.
Its exit code is 0 when all outputs are written, 1 on an error that is told in one line, 2 on wrong
usage, 130 when stopped at the keyboard.
"""

import atexit
import gc
import logging
import math
import re
import sys
from argparse import (
    SUPPRESS,
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
)
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Never, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from tqdm import tqdm

from aevb.files import InputError
from aevb.plumbing.params import Section, problems

log = logging.getLogger("aevb")

T = TypeVar("T", bound=Section)


class Parser(ArgumentParser):
    """An argument parser that reports wrong usage in one line."""

    def add_argument(self, *names: str, **metadata: Any) -> Action:
        """As argparse's, but help says what kind of value a flag takes and whether it must be."""
        kinds = {Path: "PATH", natural: "INT", positive: "INT", seconds: "SECONDS"}
        if metadata.get("type") in kinds:
            metadata.setdefault("metavar", kinds[metadata["type"]])
        if metadata.get("required"):
            metadata.update(default=SUPPRESS, help=f"{metadata['help']} (required)")
        return super().add_argument(*names, **metadata)

    def error(self, message: str) -> Never:
        """Say what is wrong and exit with 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see --help)\n")


def parser(description: str | None, *sections: type[Section]) -> Parser:
    """A parser with `--log` and a flag for each parameter of the sections, with its default."""
    result = Parser(
        description=(description or "").split("\n\n")[0],
        formatter_class=ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("--log", type=Path, help="file to append the log to", default=SUPPRESS)
    for section in sections:
        group = result.add_argument_group(f"parameters (params.yaml: {section.__name__.lower()})")
        for name, field in section.model_fields.items():
            group.add_argument(f"--{name}", help=field.description, **_argument(field))
    return result


def _argument(field: FieldInfo) -> dict[str, Any]:
    """How argparse reads a field: its type, its default, its choices, one value or several."""
    annotation: Any = field.annotation
    several = get_origin(annotation) is list
    if several:
        annotation = get_args(annotation)[0]
    while get_origin(annotation) is not None and hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    literal = isinstance(get_args(annotation)[0], str) if get_args(annotation) else False
    return {
        "type": str if literal else annotation,
        "choices": get_args(annotation) if literal else None,
        "default": field.get_default(),
        "metavar": None if literal else getattr(annotation, "__name__", "value").upper(),
        **({"nargs": "*"} if several else {}),
    }


def settings(section: type[T], arguments: Namespace) -> T:
    """The parameters of a section, checked against their ranges.

    Raises:
        InputError: naming the flag.
    """
    values = {name: getattr(arguments, name) for name in section.model_fields}
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise InputError(f"--{problems(error)}") from None


def natural(text: str) -> int:
    """An integer of at least 0, for argparse."""
    number = int(text)
    if number < 0:
        raise ArgumentTypeError(f"is {text} and should be an integer of at least 0")
    return number


def positive(text: str) -> int:
    """An integer of at least 1 and at most a million, for argparse."""
    number = int(text)
    if not 1 <= number <= 10**6:
        raise ArgumentTypeError(f"is {text} and should be an integer from 1 to {10**6}")
    return number


def seconds(text: str) -> float:
    """A time of at least 0 s, for argparse."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ArgumentTypeError(f"is {text} and should be a time in seconds, at least 0")
    return number


def run(stage: Callable[[Namespace], None], arguments: Parser) -> None:
    """Run a stage: parse, log to the terminal and to `--log`, turn mistakes into one line."""
    parsed = arguments.parse_args()
    name = Path(sys.argv[0]).stem
    # At its end Python searches all objects for cycles: with torch's that takes 0.2 s.
    atexit.register(gc.freeze)
    try:
        _log_to(getattr(parsed, "log", None))
        log.debug("$ %s", " ".join(sys.argv))
        stage(parsed)
    except (InputError, OSError) as error:
        log.error("%s: error: %s", name, " ".join(str(error).split()))
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:  # torch has no type of its own for it on the CPU
        if "allocate" not in str(error):
            raise
        log.error("%s: error: not enough memory: %s", name, " ".join(str(error).split()))
        sys.exit(1)
    except KeyboardInterrupt:
        log.error("%s: stopped at the keyboard", name)
        sys.exit(130)


class _Naming(logging.Filter):
    """Begins each line that reports progress (level DEBUG) with the name of the run.

    Under Snakemake several trainings write to one terminal at a time. User names and passwords in
    URLs are removed from every line.
    """

    whose = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = re.sub(r"//\S*@", "//", record.getMessage()), None
        if record.levelno == logging.DEBUG and self.whose:
            record.msg = f"{self.whose}: {record.msg}"
        return True


_naming = _Naming()


class _AboveTheBar(logging.Handler):
    """Writes lines to the terminal without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        # With its end in one piece: another process may write a line at the same time.
        tqdm.write(f"{self.format(record)}\n", file=sys.stderr, end="")


class _LogFile(logging.FileHandler):
    """Leaves out what cannot be written, on a full disk say; the terminal has it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing, instead of a traceback."""


def _log_to(path: Path | None) -> None:
    """Send everything to the file and what matters to the terminal.

    A terminal shows a progress bar in place of the lines that report progress (level DEBUG).
    """
    log.setLevel(logging.DEBUG)
    _naming.whose = ""
    log.addFilter(_naming)
    terminal = _AboveTheBar()
    terminal.setLevel(logging.INFO if sys.stderr.isatty() else logging.DEBUG)
    log.addHandler(terminal)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, mode="a", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(file)


def progress(
    items: Iterable[Any] | None, description: str, total: int, unit: str, initial: int = 0
) -> Any:
    """`items` with a progress bar in a terminal and nothing elsewhere; None: update it by hand.

    The bar says how far it is and the time that is left, in minutes and seconds. From here on the
    lines of the log that report progress begin with the description.
    """
    _naming.whose = description
    return tqdm(
        items,
        description,
        total,
        initial=initial,
        bar_format=f"{{desc}}: {{bar}} {{n_fmt}} of {{total_fmt}} {unit}s, {{remaining}} left",
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        leave=False,
    )
