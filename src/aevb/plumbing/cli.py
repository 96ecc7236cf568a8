"""The command line of the stages: flags, logs, progress, errors.

A stage is a script with a function `main`; the parameters of `main` become the flags. The exit code
is 0 when all outputs are written, 1 on an error, 2 on wrong usage, and 130 after an interrupt from
the keyboard.
"""

import atexit
import gc
import logging
import re
import sys
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from inspect import Parameter, isclass, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Never, TypeVar, get_args, get_origin

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo
from tqdm import tqdm

from aevb.files import InputError
from aevb.plumbing.params import Params, Section, problems

log = logging.getLogger("aevb")

Stage = Callable[..., None]
T = TypeVar("T", bound=Section)


class Parser(ArgumentParser):
    """An argument parser that reports wrong usage in one line."""

    def error(self, message: str) -> Never:
        """Report wrong usage and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see --help)\n")


def parser(stage: Stage, description: str | None) -> Parser:
    """A parser with `--log` and a flag for each parameter of a stage.

    A parameter is annotated with its type and its help text, `Annotated[Path, "the model"]`. If its
    type is a section of params.yaml, each parameter of the section is a flag.
    """
    summary, _, more = (description or "").partition("\n\n")
    result = Parser(
        description=summary,
        epilog=more,
        formatter_class=ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument(
        "--log", type=Path, metavar="PATH", default=SUPPRESS, help="file to append the log to"
    )
    names = {field.annotation: name for name, field in Params.model_fields.items()}
    for section in _sections(stage).values():
        title = f"parameters (section {names.get(section)} of params.yaml)"
        group = result.add_argument_group(title) if section in names else result
        for name, field in section.model_fields.items():
            group.add_argument(f"--{name}", **_argument(field))
    return result


def _sections(stage: Stage) -> dict[str, type[Section]]:
    """The parameters of a stage that are sections and, under the name "", all others as one."""
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
        "required": required,
        "default": SUPPRESS if required or field.default is None else field.default,
        "metavar": None if choices else kind.__name__.upper(),
        "help": f"{texts[0]} (required)" if required else texts[0],
        **({"nargs": "*"} if several else {}),
    }


def settings(section: type[T], parsed: Namespace) -> T:
    """The parameters of a section, validated.

    Raises:
        InputError: if a value is not allowed; the message names its flag.
    """
    values = {name: value for name, value in vars(parsed).items() if name in section.model_fields}
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise InputError(f"--{problems(error)}") from None


def call(stage: Stage, parsed: Namespace) -> None:
    """Call a stage with the values of its flags, validated.

    Raises:
        InputError: if a value is not allowed.
    """
    values = {name: settings(section, parsed) for name, section in _sections(stage).items()}
    stage(**dict(values.pop("")), **values)


def run(stage: Stage, description: str | None) -> None:
    """Run a stage: parse its command line, log to the terminal and to `--log`, report errors.

    An error in the input, in the file system or in the size of memory is reported in one line; of
    any other exception the log file also receives the traceback.
    """
    parsed = parser(stage, description).parse_args()
    name = Path(sys.argv[0]).stem
    # At its end Python searches all objects for cycles; with those of torch that takes 0.2 s.
    atexit.register(gc.freeze)
    try:
        _log_to(getattr(parsed, "log", None))
        log.debug("$ %s", " ".join(sys.argv))
        call(stage, parsed)
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

    With it, the lines of several trainings can be distinguished in one terminal. User names
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
        logging.raiseExceptions = False  # lines that cannot be written are left out
        file = logging.FileHandler(path, mode="a", encoding="utf-8")
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
