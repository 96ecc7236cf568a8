"""Unusual parameters and flags are refused in one line or passed on unchanged."""

import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aevb.plumbing import checking
from aevb.plumbing.checking import flags
from aevb.plumbing.params import PLACE, Params
from graph import changed, copy_tree, run
from params import as_yaml
from repository import everything
from stages import run_script

import pytest
from dvc.parsing.interpolate import to_str
from dvc.utils.serialize import parse_yaml
from snakemake.common.configfile import load_configfile

DEFAULTS = Params().model_dump()

SHELL = [
    *("; touch x", "&& touch x", "| cat", "> x", "$(touch x)", "`touch x`", "${HOME}", "$HOME"),
    *("a b", "a\nb", "a\rb", "a\tb", "'", '"', "\\", "'; touch x; '", '"; touch x; "', "*", "?"),
    *("~", "~nobody/x", "#", "!x", "{a,b}", "[a-z]", "%s", "%(prog)s", "{log}", "{{", "}", "@x"),
    *("-", "--", "-x", "--help", "--log", "--output=x", "-1", "-1e5", "=", "a=b", "", " ", "\n"),
    *("a\0b", "\x1b[2J", "a\u2028b", "a\x85b", "\u202e", "é", "日本", "\U0001d4b3", "\ud800"),
    *("none", "null", "true", "no", "1", "1e-3", "0x1f", "0100", ".5", "1_000", "nan", "inf"),
    *("../../x", "/dev/null", "C:\\x", "http://[", "http://a:b@c", "file:///x", "x" * 5000),
]


def refusal(check: Callable[[Any], Any], content: Any) -> str:
    """The one line with which a check refuses something; empty if it is accepted."""
    message = ""
    try:
        check(content)
    except ValueError as error:
        message = str(error)
    assert not message or message.isprintable()
    return message


@pytest.mark.parametrize("key", ["name", "mirror", "sha256"])
def test_a_hostile_word_is_refused_or_arrives_as_it_is(key):
    """Both engines build the same command line, from which a shell passes the word on unchanged."""
    for word in SHELL:
        values = [word] * 4 if key == "sha256" else [word]
        section = {key: values if key == "sha256" else word}
        line = [f"--{key}", *values]
        message = refusal(checking.check, changed(DEFAULTS, "data", **section))
        if not message:
            assert to_str(section) == flags(section)
            assert shlex.split(flags(section)) == line
            assert word.isprintable()
            assert not set(word) & set(" ;$`'\"\\(){}|&<>*?!#[]")
            continue
        assert f"data.{key}" in message
        # A plain `dvc repro` does not check params.yaml: the stage itself has to refuse the word,
        # unless it looks like another flag.
        if "\0" not in word and not word.startswith("-"):
            assert shlex.split(flags(section)) == line
            outcome = run_script("download", "--output", "/dev/null/x", *line)
            assert outcome.code in (1, 2)
            assert f"--{key}" in outcome.error.splitlines()[-1]


SPELLINGS = [
    *("1e-3", "1E5", "1e3", "0100", "08", "0o14", "0x1f", "0x_", "0b11", ".5", "5.", "._", "+1"),
    *("1_000", "1_0.5", "1:30", "190:20:30.15", "-0", "-0.0", "0.0", "1.0", ".inf", "-.inf"),
    *(".nan", "yes", "no", "on", "off", "y", "n", "true", "~", "null", "", "2020-01-01", "3#x"),
    *("9" * 5000, "!!int x", "!!float 3", "!!bool x", "!!timestamp x", "!!binary x", "!!str 3"),
    *("!!set {a}", "!!omap [a: 1]", "!!python/object/apply:os.system [x]", "!x y", "&a 3", "*a"),
    *("&a [*a]", "[3, 3.0]", "[3,]", "[03, 4]", "[1_0]", "[yes]", "{a: b}", "'3'", '"3"', '"\\0"'),
    *('"\\ud800"', '"\\x1b[2J"', "|\n    a\n    b", ">-\n    a", "- 3", "? 3", "a: b", "=", "<<"),
    *("3 # x", "%x", "@x", "`x`", "\t3", "3\x85", "3\u2028", "é", "[" * 2000, "a;b", "$(x)"),
    *("none", "mnist", "gray", "cpu", "1", "128", "0.003", "[3, 20]", "[]", "2020-13-45"),
]


def test_both_engines_read_the_same_value_or_it_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    for spelling in SPELLINGS:
        text = f"a:\n  b: {spelling}\n"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        if not refusal(checking.read_yaml, path):
            by_snakemake, by_dvc = load_configfile(io.StringIO(text)), parse_yaml(text, "")
            assert repr(by_snakemake) == repr(by_dvc)
            value = by_dvc["a"]["b"]
            place = isinstance(value, str) and re.fullmatch(PLACE, value)
            if place or type(value) in (int, float):
                assert flags(by_snakemake["a"]) == to_str(by_dvc["a"])


# The engines themselves.


HOSTILE = {
    "command": as_yaml().replace("mirror: none", 'mirror: "; touch canary"'),
    "wildcard": as_yaml().replace("mirror: none", 'mirror: "{log}"'),
    "flag in a list": as_yaml().replace("sha256: []", 'sha256: ["--output=canary"]'),
    "octal number": as_yaml().replace("hidden: 500", "hidden: 0500"),
    "object": as_yaml() + "\nx: !!python/object/apply:os.system [touch canary]\n",
    "template": as_yaml() + '\n__use_yte__: true\nx: ?__import__("os").system("touch canary")\n',
}


@pytest.mark.slow
def test_the_engines_refuse_before_anything_runs(tmp_path: Path) -> None:
    """Snakemake itself; DVC by `make check`, with which `make repro` begins."""
    tree = copy_tree(tmp_path / "tree")
    for name, text in HOSTILE.items():
        (tree / "params.yaml").write_text(text, encoding="utf-8")
        before = everything(tree)
        (line,) = run("python src/params.py check", tree, code=1).splitlines()
        assert line.startswith("params: error: params.yaml"), name
        output = run("snakemake --cores 1 download", tree, code=1)
        assert len(re.findall(r"^params\.yaml", output, re.MULTILINE)) == 1, output
        assert "Traceback (most recent call last)" not in output, name
        assert everything(tree) == before, name
