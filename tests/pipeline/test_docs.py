"""The commands in README.md and docs/*.md can be run.

A slow test runs them, page by page, in a clone with small parameters: the sh blocks, the commands
after `# or:` in them, and commands in `code` that are in no block. A fast test looks up targets and
flags, also those of commands that no test can run. Both know the studies in yaml blocks that begin
with `# studies/NAME.yaml`.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import graph
from aevb.plumbing import checking, params
from graph import ROOT, run
from repository import clone, commit, copy, edit
from stages import run_script

import pytest
import yaml
from snakemake.cli import get_argument_parser

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
TOOLS = ("make ", "snakemake ", "dvc ", "python ")
VALUES = params.Params().model_dump()


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


STUDIES = {
    name[1]: block
    for page in PAGES.values()
    for block in blocks(page, "yaml")
    if (name := re.match(r"# (studies/[\w-]+\.yaml)\n", block))
}


# Parsed.


def commands(page: str) -> Iterator[list[str]]:
    """The words of each command of ours on a page, in sh blocks and in `code`."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page, flags=re.MULTILINE | re.DOTALL)
    text = "\n".join([*blocks(page, "sh"), *re.findall(r"`([^`]+)`", prose)])
    for part in re.split(r"# or: |[\n;|&()'\"]", text.replace("\\\n", "")):
        line = re.sub(r"^\s*(then |\w+=\S* )*|\s*(#.*|[<>].*)?$", "", part)
        if line.startswith(TOOLS):
            yield line.split()


def wrong_make(words: list[str]) -> str:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = {*re.findall(r"^([a-z-]+):", makefile, re.M), *re.findall(r"\$\((\w+)\)", makefile)}
    unknown = [word for word in words if word.partition("=")[0] not in {*known, "-n"}]
    return f"make has no {unknown[0]}" if unknown else ""


def wrong_python(words: list[str]) -> str:
    if words[0].startswith("-"):  # python -c, python -m
        return ""
    script, *words = words
    if not (ROOT / script).exists():
        return f"there is no {script}"
    name = f"../{script.removesuffix('.py')}"
    if script == "src/research.py" and not words[0].startswith("-"):
        name = f"{name} {words[0]}"
    text = run_script(name, "--help")
    unknown = [word for word in words if word.startswith("--") and f"{word} " not in text.out]
    return f"{script} has no {unknown}" if unknown or text.code else ""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rules of the workflow, also those of the studies that the pages show."""
    tree = graph.copy_tree(tmp_path_factory.mktemp("docs") / "tree")
    for name, text in STUDIES.items():
        (tree / name).write_text(text)
    with graph.snakemake_workflow(tree) as workflow:
        return list(workflow.rules)


def wrong_snakemake(words: list[str], rules: Any) -> str:
    with redirect_stderr(StringIO()) as error:
        try:
            parsed = vars(get_argument_parser().parse_args(words))
        except SystemExit:
            return error.getvalue()
    if (profile := parsed["workflow_profile"]) and not (ROOT / profile).is_dir():
        return f"there is no {profile}"
    named = [parsed[key] or [] for key in ("targets", "forcerun", "until", "omit_from")]
    for target in (target for group in named for target in group):
        if not any(target == rule.name or rule.is_producer(target) for rule in rules):
            return f"no rule makes {target}"
    return ""


def wrong(words: list[str], rules: Any) -> str:
    """What is wrong with a command, or nothing."""
    match words:
        case ["make", *rest]:
            return wrong_make(rest)
        case ["python", *rest]:
            return wrong_python(rest) if rest else ""
        case ["snakemake", *rest]:
            return wrong_snakemake(rest, rules)
    return ""  # all commands of DVC are run


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists(page: str, rules: Any) -> None:
    found = {shlex.join(words): wrong(words, rules) for words in commands(PAGES[page])}
    assert {command: text for command, text in found.items() if text} == {}


def test_parameters_on_the_pages_are_valid(tmp_path: Path) -> None:
    for text in STUDIES.values():
        (tmp_path / "study.yaml").write_text(text)
        checking.read_study(tmp_path / "study.yaml", VALUES)
    for block in (block for page in PAGES.values() for block in blocks(page, "yaml")):
        if block not in STUDIES.values():
            over = yaml.safe_load(block)
            checking.check({name: {**VALUES.get(name, {}), **over[name]} for name in over} | {
                name: VALUES[name] for name in VALUES.keys() - over.keys()})  # fmt: skip


# Run.

LEFT_OUT = {  # how a command begins: why it is not run
    "make slurm": "needs the network; make slurm-test is in CI",
    "$EDITOR": "waits for a person",
    "tmux": "waits for a person",
    "srun": "needs SLURM: test_slurm",
    "squeue": "needs SLURM: test_slurm",
    "snakemake --workflow-profile": "needs SLURM: test_slurm",
    "python src/experiments.py --profile": "needs SLURM",
    "tail -F": "does not end",
    "kill": "needs a training in the background: test_resume",
    "make test": "runs this test",
    "make full-test": "takes twenty minutes",
    "pytest": "is in CI",
    "make bench": "takes ten minutes",
}
INSTEAD = {  # a text on a page: what is run instead
    "/somewhere/store": "../store",
    " && ": "\n",  # bash -e ignores failures before &&
    "dot -Tsvg": "cat",  # Graphviz is not part of the environment
}


def scripts() -> dict[str, str]:
    """The commands of each page, in their order."""
    found = {}
    known = "\n".join(block for page in PAGES.values() for block in blocks(page, "sh"))
    for name, page in PAGES.items():
        parts = []
        for match in re.finditer(
            r"^```sh\n(.*?)^```$|^ *```.*?^ *```$|`([^`]+)`", page, re.M | re.S
        ):
            block, code = match.groups(default="")
            if code.startswith(TOOLS) and code not in known:
                block = f"{code}\n"
                known += block
            parts.append(re.sub(r"# or: (.*)", r"\n\1", block))
        found[name] = "".join(parts)
    return {name: text for name, text in found.items() if text}


SCRIPTS = scripts()


@pytest.fixture(scope="module")
def prepared(origin: Path, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with an environment, in which all results are made and committed."""
    tree = clone(origin, tmp_path_factory.mktemp("prepared") / "tree")
    edit(tree, "runs", latent_dims=[3])
    for study in (tree / "studies").glob("*.yaml"):
        text = re.sub(r"max_epochs: \d+", "max_epochs: 2", study.read_text(encoding="utf-8"))
        text = re.sub(r"(latent_dims|seeds|snapshots): \[(\d+),[^]]*", r"\1: [\2", text)
        study.write_text(text, encoding="utf-8")
    for name, text in STUDIES.items():
        (tree / name).write_text(text, encoding="utf-8")
    (tree / "my.yaml").write_text("reconstruct: {images: 3}\n", encoding="utf-8")
    (tree / "my-images").symlink_to(mirror)
    (tree / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (tree / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (tree / ".venv" / ".ready").touch()
    run("make handin", tree)
    run("snakemake --cores 2 all register", tree)
    run("git branch -M main", tree)
    commit(tree, "results")
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("page", SCRIPTS)
def test_every_command_of_a_page_runs(page: str, prepared: Path, tmp_path: Path) -> None:
    tree = copy(prepared, tmp_path)
    (tmp_path / "other").symlink_to(prepared)
    text = SCRIPTS[page]
    for begin in LEFT_OUT:
        text = re.sub(rf"^{re.escape(begin)}(.*[|\\]\n)*.*\n", "", text, flags=re.MULTILINE)
    for old, new in INSTEAD.items():
        text = text.replace(old, new)
    (tmp_path / "script").write_text(text, encoding="utf-8")
    run("bash -e -x -o pipefail ../script", tree)
