"""Run one of the stages on request: `python src/research.py latents --test … --model …`.

Each stage is a module of `aevb.research` with a function `main`.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from importlib import import_module
from pathlib import Path

from aevb.plumbing import cli
from aevb.plumbing.machine import repeatable

from threadpoolctl import threadpool_limits


def stages() -> dict[str, str]:
    """The stages by name, each with the first line of its docstring."""
    paths = sorted(Path(__file__).parent.glob("aevb/research/*.py"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    return {
        name: text.strip('"').splitlines()[0] for name, text in texts.items() if "def main(" in text
    }


if __name__ == "__main__":
    parser = cli.Parser(
        description="Run one of the stages on request.",
        formatter_class=RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:<19}{line}" for name, line in stages().items()),
    )
    parser.add_argument("stage", choices=stages(), help="its flags: research.py STAGE --help")
    stage = parser.parse_args(sys.argv[1:2]).stage
    sys.argv[:2] = [f"{sys.argv[0]} {stage}"]
    module = import_module(f"aevb.research.{stage}")
    repeatable()
    threadpool_limits(1)
    cli.run(module.main, module.__doc__)
