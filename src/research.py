"""Run one of the stages on request: `python src/research.py iwae --test … --model …`.

Each stage is a module of `aevb.research` with a function `main`.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path

from aevb.plumbing import cli


def stages() -> dict[str, str]:
    """The stages by name, each with the first line of its docstring."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("aevb/research/*.py")):
        text = path.read_text(encoding="utf-8")
        if "\ndef main(" in text:
            found[path.stem] = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
    return found


if __name__ == "__main__":
    known, stage = stages(), sys.argv[1] if len(sys.argv) > 1 else ""
    if stage in ("-h", "--help"):
        lines = [f"  {name:<19}{line}" for name, line in known.items()]
        print("usage: research.py STAGE ...", "Run one of the stages on request.", sep="\n\n")
        print("", *lines, "", "research.py STAGE --help lists the flags of a stage.", sep="\n")
    elif stage not in known:
        print(f"research.py: error: {stage!r} should be one of {', '.join(known)}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.argv[:2] = [f"{sys.argv[0]} {stage}"]
        module = import_module(f"aevb.research.{stage}")
        cli.run(module.main, module.__doc__)
