"""Every command that README.md and docs/*.md show is one that exists, with the options it names.

Nothing is run, which takes minutes (test_walkthrough): Snakemake, DVC and the scripts only parse
what is written, targets are looked up. So it is with what no test can run, too. A study that a page
writes out (a yaml block that begins with `# studies/NAME.yaml`) is there as well.
"""

import os
import re
import runpy
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from snakemake.api import DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi
from snakemake.cli import get_argument_parser
from snakemake.settings.types import Quietness

import graph
from aevb.plumbing import params, studies
from graph import ROOT

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
TOOLS = ("make", "snakemake", "dvc", "python")
VALUES = params.Params().model_dump()


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of each command of a page that belongs to us, in sh blocks and in `code`."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", "").split("\n")]
    lines += [line.partition("# or: ")[2] for line in lines]
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`([^`]+)`", prose)
    return [words for line in lines for words in of_a_line(line)]


def of_a_line(line: str) -> Iterator[list[str]]:
    """The commands of a line of shell: between ; && | ( ), and in quotes for another program."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        tokens = [*lexer, ";"]
    except ValueError:  # `code` that is no shell
        return
    words: list[str] = []
    for token in tokens:
        if " " in token and token.split()[0] in TOOLS:
            yield from of_a_line(token)
        if set(token) <= set(lexer.punctuation_chars):
            while words and re.match(r"\w+=", words[0]):
                del words[0]
            if words and words[0] in TOOLS:
                yield words
            words = []
        else:
            words.append(token)


def said(parse: Callable[[], object]) -> str:
    """What a parser says against its words, or nothing; help is fine."""
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            parse()
        except SystemExit as stop:
            return out.getvalue() if stop.code else ""
        except DvcParserError:
            return out.getvalue() or "wrong usage"
    return ""


def wrong_make(words: list[str]) -> str:
    """What is wrong with the arguments of make."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"\$\((\w+)\)", makefile))
    unknown = [
        word
        for word in words
        if word.partition("=")[0] not in variables and word not in {*targets, "-n"}
    ]
    return f"make has no {unknown[0]}" if unknown else ""


def wrong_script(words: list[str]) -> str:
    """What is wrong with a script of ours and its arguments."""
    if words[0].startswith("-"):  # python -c, python -m
        return ""
    script = ROOT / words[0]
    if not script.exists():
        return f"there is no {words[0]}"
    with patch.object(sys, "argv", [words[0]]):
        made = runpy.run_path(str(script), run_name="looked at")
    if "arguments" not in made:
        return ""
    parser: ArgumentParser = made["arguments"]()
    for action in parser._actions:
        action.required = False  # a page may leave out what it told before
    return said(lambda: parser.parse_args(words[1:]))


def wrong_dvc(words: list[str]) -> str:
    """What is wrong with the arguments of dvc, its targets or the parameters that it sets."""
    parsed: dict[str, Any] = {}
    if text := said(lambda: parsed.update(vars(get_main_parser().parse_args(words)))):
        return text
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    targets = parsed.get("targets") or [] if parsed.get("cmd") == "repro" else []
    for target in targets:
        if target.partition("@")[0] not in stages:
            return f"dvc.yaml has no {target}"
    for setting in parsed.get("set_param") or []:
        section, _, key = setting.partition("=")[0].partition(".")
        if key not in VALUES.get(section, {}):
            return f"params.yaml has no {section}.{key}"
    return ""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rules of the workflow, also those of the studies that the pages write out."""
    tree = graph.copy_tree(tmp_path_factory.mktemp("docs") / "tree")
    for page in PAGES.values():
        for block in blocks(page, "yaml"):
            if name := re.match(r"# (studies/[\w-]+\.yaml)\n", block):
                (tree / name[1]).write_text(block)
    quiet = OutputSettings(quiet={Quietness.ALL})
    with (
        patch.dict(os.environ),
        patch.object(sys, "path", list(sys.path)),
        SnakemakeApi(quiet) as api,
    ):
        workflow_api = api.workflow(ResourceSettings(cores=1), None, None, None, None, None,
                                    tree / "Snakefile", tree)  # fmt: skip
        workflow = workflow_api.dag(DAGSettings()).workflow_api._workflow
        workflow._prepare_dag(
            forceall=False, ignore_incomplete=True, lock_warn_only=True, nolock=True
        )
        return list(workflow.rules)


def wrong_snakemake(words: list[str], rules: Any) -> str:
    """What is wrong with the arguments of snakemake: options, profiles, targets."""
    parsed: dict[str, Any] = {}
    if text := said(lambda: parsed.update(vars(get_argument_parser().parse_args(words)))):
        return text
    if (profile := parsed["workflow_profile"]) and not (ROOT / profile).is_dir():
        return f"there is no {profile}"
    named = [parsed[key] or [] for key in ("targets", "forcerun", "until", "omit_from")]
    for target in (target for group in named for target in group):
        if not any(target == rule.name or rule.is_producer(target) for rule in rules):
            return f"no rule makes {target}"
    return ""


def wrong(words: list[str], rules: Any) -> str:
    """What is wrong with a command, in words, or nothing."""
    match words:
        case ["make", *rest]:
            return wrong_make(rest)
        case ["python", *rest]:
            return wrong_script(rest)
        case ["dvc", *rest]:
            return wrong_dvc(rest) if rest else ""
        case ["snakemake", *rest]:
            return wrong_snakemake(rest, rules)
    raise AssertionError(words)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists(page, rules):
    found = {shlex.join(words): wrong(words, rules) for words in commands(PAGES[page])}
    assert {command: text for command, text in found.items() if text} == {}


def test_commands_are_found_where_they_stand():
    block = "A=1 make x  # or: dvc y\nif true; then (snakemake \\\n a) | cat\nrun 'make b c'\n"
    found = [shlex.join(words) for words in commands(f"```sh\n{block}```\nand `dvc z` too\n")]
    assert found == ["make x", "snakemake a", "make b c", "dvc y", "dvc z"]
    assert {words[0] for words in commands(PAGES["README.md"])} == {*TOOLS}


# What stands in README.md, and something in its place that does not exist.
FAULTS = {
    "target of make": ("make test ", "make tests "),
    "option of snakemake": ("--configfile params.yaml", "--config-file params.yaml"),
    "rule": ("snakemake --cores 1 register", "snakemake --cores 1 regster"),
    "profile": ("workflow/profiles/slurm`", "workflow/profiles/slrum`"),
    "command of dvc": ("dvc metrics diff", "dvc metric diff"),
    "option of dvc": ("dvc status --quiet", "dvc status --quite"),
    "parameter": ("-S train.learning_rate", "-S train.rate"),
    "script": ("python src/train.py --help", "python src/trian.py --help"),
    "flag of a script": ("python src/train.py --help", "python src/train.py --latent_dims 3"),
    "value of a flag": ("python src/train.py --help", "python src/train.py --latent_dim three"),
    "word of a script": ("make check", "python src/params.py chekc"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_command_that_does_not_exist_is_found(fault, rules):
    old, new = FAULTS[fault]
    assert old in PAGES["README.md"], f"README.md no longer holds {old!r}: choose another fault"
    page = PAGES["README.md"].replace(old, new)
    assert [words for words in commands(page) if wrong(words, rules)]


def test_studies_that_the_pages_write_out_are_right(tmp_path):
    written = [block for page in PAGES.values() for block in blocks(page, "yaml")]
    for number, block in enumerate(block for block in written if block.startswith("# studies/")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        studies.read_study(path, VALUES)
    for block in (block for block in written if not block.startswith("# studies/")):
        over = yaml.safe_load(block)
        params.check({name: {**VALUES[name], **values} for name, values in (VALUES | over).items()})
