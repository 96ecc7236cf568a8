"""The command line of the stages: flags, logs, progress, errors.

A stage is a script with explicit input and output paths and its section of params.yaml as flags.
Its exit code is 0 when all outputs are written, 1 on an error, 2 on wrong usage, and 130 after an
interrupt from the keyboard.
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
from aevb.plumbing.params import Params, Section, problems

log = logging.getLogger("aevb")

T = TypeVar("T", bound=Section)


class Parser(ArgumentParser):
    """An argument parser that reports wrong usage in one line."""

    def add_argument(self, *names: str, **metadata: Any) -> Action:
        """As in argparse; the help also names the type of the value and says if it is required."""
        kinds = {Path: "PATH", natural: "INT", positive: "INT", seconds: "SECONDS"}
        if metadata.get("type") in kinds:
            metadata.setdefault("metavar", kinds[metadata["type"]])
        if metadata.get("required"):
            metadata.update(default=SUPPRESS, help=f"{metadata['help']} (required)")
        return super().add_argument(*names, **metadata)

    def error(self, message: str) -> Never:
        """Report wrong usage and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see --help)\n")


def parser(description: str | None, *sections: type[Section]) -> Parser:
    """A parser with `--log` and a flag for each parameter of the sections, with its default."""
    result = Parser(
        description=(description or "").split("\n\n")[0],
        formatter_class=ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("--log", type=Path, help="file to append the log to", default=SUPPRESS)
    names = {field.annotation: name for name, field in Params.model_fields.items()}
    for section in sections:
        group = result.add_argument_group(f"parameters (section {names[section]} of params.yaml)")
        for name, field in section.model_fields.items():
            group.add_argument(f"--{name}", help=field.description, **_argument(field))
    return result


def _argument(field: FieldInfo) -> dict[str, Any]:
    """The arguments of add_argument for a field."""
    annotation: Any = field.annotation
    several = get_origin(annotation) is list
    if several:
        annotation = get_args(annotation)[0]
    if hasattr(annotation, "__metadata__"):  # Annotated[int, Field(…)]
        annotation = get_args(annotation)[0]
    choices = get_args(annotation)  # of a Literal
    return {
        "type": str if choices else annotation,
        "choices": choices or None,
        "default": field.get_default(),
        "metavar": None if choices else annotation.__name__.upper(),
        **({"nargs": "*"} if several else {}),
    }


def settings(section: type[T], arguments: Namespace) -> T:
    """The parameters of a section, validated.

    Raises:
        InputError: if a value is not allowed; the message names its flag.
    """
    values = {name: getattr(arguments, name) for name in section.model_fields}
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise InputError(f"--{problems(error)}") from None


def natural(text: str) -> int:
    """An integer that is at least 0, for argparse."""
    number = int(text)
    if number < 0:
        raise ArgumentTypeError(f"is {text} and should be an integer of at least 0")
    return number


def positive(text: str) -> int:
    """An integer from 1 to 1,000,000, for argparse."""
    number = int(text)
    if not 1 <= number <= 10**6:
        raise ArgumentTypeError(f"is {text} and should be an integer from 1 to {10**6}")
    return number


def seconds(text: str) -> float:
    """A time in seconds that is at least 0, for argparse."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ArgumentTypeError(f"is {text} and should be a time in seconds, at least 0")
    return number


def run(stage: Callable[[Namespace], None], arguments: Parser) -> None:
    """Run a stage: parse its command line, log to the terminal and to `--log`, report errors.

    An error in the input, in the file system or in the size of memory is reported in one line; of
    any other exception the log file also receives the traceback.
    """
    parsed = arguments.parse_args()
    name = Path(sys.argv[0]).stem
    # At its end Python searches all objects for cycles; with those of torch that takes 0.2 s.
    atexit.register(gc.freeze)
    try:
        _log_to(getattr(parsed, "log", None))
        log.debug("$ %s", " ".join(sys.argv))
        stage(parsed)
    except KeyboardInterrupt:
        log.error("%s: interrupted from the keyboard", name)
        sys.exit(130)
    except Exception as error:
        # torch raises a RuntimeError if it cannot allocate memory on the CPU.
        memory = isinstance(error, MemoryError | RuntimeError) and "allocate" in str(error)
        if not memory and not isinstance(error, InputError | OSError):
            log.exception("%s: unexpected error", name)
            sys.exit(1)
        reason = "not enough memory: " if memory else ""
        log.error("%s: error: %s%s", name, reason, " ".join(str(error).split()))
        sys.exit(1)


class _Prefix(logging.Filter):
    """Adds a prefix to the lines that report progress (level DEBUG).

    With it, the lines of several trainings can be told apart in one terminal. User names
    and passwords in URLs are removed from every line.
    """

    prefix = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = re.sub(r"//\S*@", "//", record.getMessage()), None
        if record.levelno == logging.DEBUG and self.prefix:
            record.msg = f"{self.prefix}: {record.msg}"
        return True


_progress = _Prefix()


class _Terminal(logging.Handler):
    """Writes lines to the terminal without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        # In one call with the line end, because other processes may write lines at the same time.
        tqdm.write(f"{self.format(record)}\n", file=sys.stderr, end="")


class _LogFile(logging.FileHandler):
    """Leaves out lines that cannot be written, for example on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Print no traceback; the terminal shows the line anyway."""


def _log_to(path: Path | None) -> None:
    """Log everything to the file, and to the terminal.

    An interactive terminal shows a progress bar instead of the lines that report progress.
    """
    log.setLevel(logging.DEBUG)
    _progress.prefix = ""
    log.addFilter(_progress)
    terminal = _Terminal()
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
    """`items` with a progress bar, which is only shown in an interactive terminal.

    With None instead of items, the caller updates the bar. The bar shows the remaining time in
    minutes and seconds. From here on the description is the prefix of the lines that report
    progress.
    """
    _progress.prefix = description
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
