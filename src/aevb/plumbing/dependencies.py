"""The code that a stage depends on, derived from its imports.

A stage depends on its script and on every library file that it imports, directly or indirectly.
Files in plumbing/ are left out, because they do not change the results of a stage, except through
its flags.
"""

import ast
import re
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
PLUMBING = "aevb.plumbing"


def code_of(*scripts: str) -> list[str]:
    """The files that decide a stage's results: these scripts, then the library files they import.

    A module that a script loads by name, as src/research.py does, has to be given too.
    """
    found = [*scripts]
    for file in found:  # to which the loop appends
        for module in _imports(SOURCE.parent / file):
            imported = f"src/{module.replace('.', '/')}.py"
            is_code = not module.startswith(PLUMBING) and (SOURCE.parent / imported).exists()
            if is_code and imported not in found:
                found.append(imported)
    return [*scripts, *sorted(found[len(scripts) :])]


@cache
def _imports(path: Path) -> list[str]:
    """The names that a file imports, at its top or in functions; some of them are modules."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return found


def with_code(dvc_yaml: str) -> str:
    """The text of dvc.yaml with the present code in the `deps` of each stage."""

    def stage(found: re.Match[str]) -> str:
        code = "".join(f"      - {path}\n" for path in code_of(found["script"]))
        files = re.sub(r"      - src/.*\n", "", found["deps"])
        return f"{found['command']}{files}{code}"

    pattern = r"(?P<command>    cmd: >-\n      python (?P<script>\S+)(?s:.*?)    deps:\n)"
    return re.sub(pattern + r"(?P<deps>(?:      - .*\n)+)", stage, dvc_yaml)
