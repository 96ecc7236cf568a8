"""The command line of the stages: flags, logs, progress, errors.

A stage is a script with a function `main`; the parameters of `main` become the flags. The exit code
is 0 when all outputs are written, 1 on an error, 2 on wrong usage, and 130 after an interrupt from
the keyboard.
"""

import atexit
import gc
import logging
import os
import re
import sys
import time
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Callable
from inspect import Parameter, isclass, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Never, get_args, get_origin

from aevb.files import InputError
from aevb.plumbing.checking import problems
from aevb.plumbing.params import Params, Section

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo
from tqdm import tqdm

log = logging.getLogger("aevb")


class Parser(ArgumentParser):
    """An argument parser that reports wrong usage in one line."""

    def error(self, message: str) -> Never:
        """Report wrong usage and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see --help)\n")


def parser(sections: dict[str, type[Section]], description: str | None) -> Parser:
    """A parser with `--log` and a flag for each parameter of some sections."""
    summary, _, more = (description or "").partition("\n\n")
    result = Parser(
        description=summary,
        epilog=more,
        formatter_class=ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    help_of_log = "file to append the log to"
    result.add_argument("--log", type=Path, metavar="PATH", default=SUPPRESS, help=help_of_log)
    names = {field.annotation: name for name, field in Params.model_fields.items()}
    for section in sections.values():
        title = f"parameters (section {names.get(section)} of params.yaml)"
        group = result.add_argument_group(title) if section in names else result
        for name, field in section.model_fields.items():
            group.add_argument(f"--{name}", **_argument(field))
    return result


def _sections(stage: Callable[..., None]) -> dict[str, type[Section]]:
    """The parameters of a stage that are sections and, under the name "", all others as one.

    A parameter that is no section is annotated with its type and its help text, as
    `Annotated[Path, "the model"]`.
    """
    sections: dict[str, type[Section]] = {}
    others: dict[str, Any] = {}
    for name, parameter in signature(stage).parameters.items():
        if isclass(parameter.annotation) and issubclass(parameter.annotation, Section):
            sections[name] = parameter.annotation
        else:
            default = ... if parameter.default is Parameter.empty else parameter.default
            others[name] = (parameter.annotation, default)
    return {"": create_model("Flags", __base__=Section, **others), **sections}


def _argument(field: FieldInfo) -> dict[str, Any]:
    """The arguments of add_argument for a field."""
    kind: Any = field.annotation
    several = False
    while (origin := get_origin(kind)) in (list, Annotated, UnionType):
        several = several or origin is list
        kind = get_args(kind)[0]
    choices = get_args(kind)  # of a Literal
    texts = [text for text in (field.description, *field.metadata) if isinstance(text, str)]
    required = field.is_required()
    return {
        "type": str if choices else kind,
        "choices": choices or None,
        "nargs": "*" if several else None,
        "required": required,
        "default": SUPPRESS if required or field.default is None else field.default,
        "metavar": None if choices else kind.__name__.upper(),
        "help": f"{texts[0]} (required)" if required else texts[0],
    }


def _values(section: type[Section], parsed: dict[str, Any]) -> Section:
    """The parameters of a section; InputError, naming the flag, if a value is not allowed."""
    try:
        return section(**{name: parsed[name] for name in section.model_fields if name in parsed})
    except ValidationError as error:
        raise InputError(f"--{problems(error)}") from None


def run(stage: Callable[..., None], description: str | None) -> None:
    """Run a stage: parse its command line, log to the terminal and to `--log`, report errors.

    An error in the input, in the file system or in the size of memory is reported in one line.
    """
    sections = _sections(stage)
    parsed = vars(parser(sections, description).parse_args())
    name = Path(sys.argv[0]).stem
    # At its end Python searches all objects for cycles; with those of torch that takes 0.2 s.
    atexit.register(gc.freeze)
    try:
        _log_to(parsed.get("log"))
        log.debug("$ %s", " ".join(sys.argv))
        values = {name: _values(section, parsed) for name, section in sections.items()}
        stage(**dict(values.pop("")), **values)
    except KeyboardInterrupt:
        log.error("%s: interrupted from the keyboard", name)
        sys.exit(130)
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        # torch raises a RuntimeError if it cannot allocate memory on the CPU.
        memory = not isinstance(error, InputError | OSError)
        if memory and "allocate" not in str(error):
            raise
        reason = "not enough memory: " if memory else ""
        log.error("%s: error: %s%s", name, reason, " ".join(str(error).split()))
        sys.exit(1)


def _without_passwords(record: logging.LogRecord) -> bool:
    """Remove user names and passwords from the URLs in a line."""
    record.msg, record.args = re.sub(r"//\S*@", "//", record.getMessage()), None
    return True


class _Terminal(logging.Handler):
    """Writes lines to the terminal without breaking a progress bar.

    An interactive terminal without a bar shows a line that reports progress (level DEBUG) every 30
    seconds, other places show all of them.
    """

    last = time.time()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if record.levelno == logging.DEBUG and sys.stderr.isatty():
            if _bars() or record.created - self.last < 30:
                return
            self.last = record.created
        # In one call with the line end, because other processes may write lines at the same time.
        tqdm.write(f"{self.format(record)}\n", file=sys.stderr, end="")


def _log_to(path: Path | None) -> None:
    """Log everything to the file, and to the terminal."""
    log.setLevel(logging.DEBUG)
    log.addFilter(_without_passwords)
    log.addHandler(_Terminal())
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        logging.raiseExceptions = False  # lines that cannot be written are left out
        file = logging.FileHandler(path, mode="a", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(file)


def _bars() -> bool:
    """Whether to show progress bars: not to a file, and not to the terminal of several jobs."""
    return sys.stderr.isatty() and "TQDM_DISABLE" not in os.environ


def progress(description: str, total: int, unit: str, initial: int = 0) -> Any:
    """A progress bar, which the caller updates.

    The bar shows the remaining time in minutes and seconds. It is only shown in an interactive
    terminal, and not if the environment variable TQDM_DISABLE is set, as it is by the Snakefile.
    """
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        bar_format=f"{{desc}}: {{bar}} {{n_fmt}} of {{total_fmt}} {unit}s, {{remaining}} left",
        disable=not _bars(),
        dynamic_ncols=True,
        leave=False,
    )
