"""The code that a stage depends on, derived from its imports.

A stage depends on its script and on every library file that it imports, directly or indirectly.
Files in plumbing/ are left out, because they do not change the results of a stage, except through
its flags.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
PLUMBING = "aevb.plumbing"


def code_of(*scripts: str) -> list[str]:
    """The files that decide a stage's results: these scripts, then the library files they import.

    A module that a script loads by name, as src/research.py does, has to be given too.
    """
    found = {*scripts}
    waiting = [SOURCE.parent / script for script in scripts]
    while waiting:
        for module in _imports(waiting.pop()):
            path = SOURCE / f"{module.replace('.', '/')}.py"
            name = path.relative_to(SOURCE.parent).as_posix()
            if name not in found and not module.startswith(PLUMBING) and path.exists():
                found.add(name)
                waiting.append(path)
    return [*scripts, *sorted(found - {*scripts})]


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """The names that a file imports, at its top or in functions; some of them are modules."""

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{name.name}" for name in node.names)

    return tuple(names())


def with_code(dvc_yaml: str) -> str:
    """The text of dvc.yaml with the present code in the `deps` of each stage."""

    def stage(found: re.Match[str]) -> str:
        code = "".join(f"      - {path}\n" for path in code_of(found["script"]))
        files = re.sub(r"      - src/.*\n", "", found["deps"])
        return f"{found['command']}{files}{code}"

    pattern = r"(?P<command>    cmd: >-\n      python (?P<script>\S+)(?s:.*?)    deps:\n)"
    return re.sub(pattern + r"(?P<deps>(?:      - .*\n)+)", stage, dvc_yaml)
