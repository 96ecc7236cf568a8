"""Parameters and flags that nobody would write: garbage is refused in one line, all else arrives.

Thousands of generated cases, the same ones in every run.
"""

import importlib
import io
import re
import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from dvc.parsing.interpolate import to_str
from dvc.utils.serialize import parse_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snakemake.common.configfile import load_configfile

from aevb.plumbing import cli, params, reference
from aevb.plumbing.params import Params, Section, flags
from graph import copy_tree, run
from test_cli import STAGES, captured, command
from test_params import FIELDS, SECTIONS, fields, one
from test_pipeline import everything

DEFAULTS: dict[str, Any] = Params().model_dump()
STAGE_OF = {section: stage for stage, sections in STAGES.items() for section in sections}
ARGUMENTS = {stage: importlib.import_module(stage).arguments for stage in STAGES}
FILES = {
    **{stage: tuple(command(stage, Path("in"), Path("out"))) for stage in STAGES if stage not in
       ("download", "compare")},
    "download": ("--output", "out"),
    "compare": tuple(
        word
        for name in ("metrics", "history", "evaluation", "samples", "reconstructions", "output")
        for word in (f"--{name}", name)
    ),
}  # fmt: skip


def cases(number: int) -> settings:
    """So many cases, always the same; nothing is kept in the tree."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# What to try.

SHELL = [
    *("; touch x", "&& touch x", "| cat", "> x", "$(touch x)", "`touch x`", "${HOME}", "$HOME"),
    *("a b", "a\nb", "a\rb", "a\tb", "'", '"', "\\", "'; touch x; '", '"; touch x; "', "*", "?"),
    *("~", "~nobody/x", "#", "!x", "{a,b}", "[a-z]", "%s", "%(prog)s", "{log}", "{{", "}", "@x"),
    *("-", "--", "-x", "--help", "--log", "--output=x", "-1", "-1e5", "=", "a=b", "", " ", "\n"),
    *("a\0b", "\x1b[2J", "a\u2028b", "a\x85b", "\u202e", "é", "日本", "\U0001d4b3", "\ud800"),
    *("none", "null", "true", "no", "1", "1e-3", "0x1f", "0100", ".5", "1_000", "nan", "inf"),
    *("../../x", "/dev/null", "C:\\x", "http://[", "http://a:b@c", "file:///x", "x" * 5000),
]
words = st.one_of(
    st.sampled_from(SHELL), st.text(max_size=8), st.text("-;$`'\" \n(){}|&x", max_size=8)
)
numbers = st.one_of(
    st.integers(),
    st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**30, -(10**30), 10**400]),
    st.floats(),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, words, st.binary(max_size=4), st.dates())
known = st.sampled_from([*SECTIONS, *(key for _, key, _ in FIELDS)])
keys = st.one_of(known, words, scalars)
garbage = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(known, inner, max_size=4),
    ),
    max_leaves=12,
)


@st.composite
def nearly_right(draw: st.DrawFn) -> dict[Any, Any]:
    """Parameters with a few things wrong."""
    values: dict[Any, Any] = {name: dict(section) for name, section in DEFAULTS.items()}
    for _ in range(draw(st.integers(1, 3))):
        section, key, _ = draw(st.sampled_from(FIELDS))
        if not isinstance(values.get(section), dict):
            continue
        match draw(st.integers(0, 6)):
            case 0:
                values[section] = draw(garbage)
            case 1:
                values[section].pop(key, None)
            case 2:
                values[section][draw(keys)] = draw(garbage)
            case 3:
                values[draw(keys)] = draw(garbage)
            case 4:
                values[section][key] = draw(st.lists(scalars, max_size=5))
            case _:
                values[section][key] = draw(garbage)
    return values


valid = st.fixed_dictionaries(
    {
        name: st.fixed_dictionaries({key: one(schema) for key, schema in fields(kind).items()})
        for name, kind in SECTIONS.items()
    }
)


def refusal(check: Callable[[Any], Any], given: Any) -> str | None:
    """The one line that a check refuses something in, None where it takes it."""
    try:
        check(given)
    except ValueError as error:
        message = str(error)
    else:
        return None
    assert message.isprintable(), message
    assert message.startswith("params.yaml"), message
    assert len(message) < 20000
    return message


def read(stage: str, *given: str) -> dict[type[Section], Section]:
    """A stage's sections, as it reads them from its words."""
    found: dict[type[Section], Section] = {}

    def parsed(arguments: Namespace) -> None:
        found.update((kind, cli.settings(kind, arguments)) for kind in STAGES[stage])

    with (
        mock.patch.object(cli, "_log_to"),  # a hostile word may be the name of the log file
        mock.patch.object(cli.log, "error") as said,
    ):
        outcome = captured(lambda: cli.run(parsed, ARGUMENTS[stage]()), f"{stage}.py", *given)
    match outcome.code:
        case 0:
            assert found or "--help" in given
        case 1:
            (form, *callback), _ = said.call_args
            assert (form % tuple(callback)).startswith(f"{stage}: error: --")
            assert (form % tuple(callback)).isprintable()
            assert not found
        case 2:
            assert len(outcome.error.splitlines()) == 1, outcome.error
            assert outcome.error.startswith(f"{stage}.py: error: ")
        case code:
            raise AssertionError(f"exit code {code}")
    return found


def by_flags(values: dict[str, Any]) -> Iterator[tuple[str, Section]]:
    """Every section, as its stage reads it from the flags that both engines make of the values."""
    assert all(to_str(section) == flags(section) for section in values.values())
    for stage, kinds in STAGES.items():
        names = [kind.__name__.lower() for kind in kinds]
        line = " ".join(flags(values[name]) for name in names)
        found = read(stage, *FILES[stage], *shlex.split(line))
        yield from ((name, found[kind]) for name, kind in zip(names, kinds, strict=True))


# Parameters.


@cases(2000)
@given(garbage)
def test_garbage_is_refused_in_one_line(values):
    assert refusal(params.check, values)


@cases(2500)
@given(nearly_right())
def test_what_is_nearly_right_is_refused_in_one_line_or_right(values):
    if refusal(params.check, values) is None:
        assert params.check(values).model_dump() == values


@cases(400)
@given(valid)
def test_valid_parameters_reach_their_stages(values):
    """Those of each section, whether both lists hold a value twice or not."""
    for name, section in by_flags(values):
        assert section.model_dump() == values[name]
        assert section == getattr(Params(**values), name)


TEXTS = [
    (section, key) for section, key, schema in FIELDS
    if "string" in (schema["type"], schema.get("items", {}).get("type"))
]  # fmt: skip


@cases(2000)
@given(place=st.sampled_from(TEXTS), word=words)
def test_a_hostile_word_is_refused_or_arrives_literally(place, word):
    section, key = place
    value = [word] * 4 if key == "sha256" else word
    values = {**DEFAULTS, section: {**DEFAULTS[section], key: value}}
    callback = refusal(params.check, values)
    stage = STAGE_OF[SECTIONS[section]]
    given = [] if "\0" in word else shlex.split(flags({key: value}))
    if callback is None:
        assert to_str({key: value}) == flags({key: value})
        found = read(stage, *FILES[stage], *given)[SECTIONS[section]]
        assert found.model_dump()[key] == value
        assert word.isprintable()
        assert not set(word) & set(" ;$`'\"\\(){}|&<>*?!#[]")
        return
    assert f"{section}.{key}" in callback
    # By hand, or by a plain `dvc repro`, it comes to the stage, which then refuses it, unless it
    # passes for a flag: only `make check` sees that.
    if given and not (key == "sha256" and word.startswith("-")):
        assert given == [f"--{key}", *([word] * 4 if key == "sha256" else [word])]
        assert not read(stage, *FILES[stage], *given)


# params.yaml as text.

SPELLINGS = [
    *("1e-3", "1E5", "1e3", "0100", "08", "0o14", "0x1f", "0x_", "0b11", ".5", "5.", "._", "+1"),
    *(
        "1_000",
        "1_0.5",
        "1:30",
        "190:20:30.15",
        "-0",
        "-0.0",
        "0.0",
        "1.0",
        ".inf",
        "-.inf",
        ".nan",
    ),
    *("yes", "no", "on", "off", "y", "n", "true", "~", "null", "", "2020-01-01", "2020-13-45"),
    *("9" * 5000, "!!int x", "!!float 3", "!!bool x", "!!timestamp x", "!!binary x", "!!str 3"),
    *("!!set {a}", "!!omap [a: 1]", "!!python/object/apply:os.system [x]", "!x y", "&a 3", "*a"),
    *("&a [*a]", "[3, 3.0]", "[3,]", "[03, 4]", "[1_0]", "[yes]", "{a: b}", "'3'", '"3"', '"\\0"'),
    *('"\\ud800"', '"\\x1b[2J"', "|\n    a\n    b", ">-\n    a", "- 3", "? 3", "a: b", "=", "<<"),
    *("3 # x", "3#x", "%x", "@x", "`x`", "\t3", "3\x85", "3\u2028", "é", "[" * 2000, "a;b", "$(x)"),
    *("none", "mnist", "gray", "cpu", "1", "128", "0.003", "[3, 20]", "[]"),
]
LINES = [
    *("__use_yte__: true", "<<: {a: 1}", "<<: 3", "---", "...", "%YAML 1.1", "yes: {a: 1}", "a"),
    *(
        "data: {}",
        "data:",
        "  seed: 1",
        "  yes: 1",
        "  <<: {seed: 2}",
        "  ? [a]\n  : b",
        "\t",
        "- 1",
    ),
]
PLAIN = "\n".join(line.split("#")[0].rstrip() for line in reference.as_yaml().splitlines()) + "\n"


@st.composite
def texts(draw: st.DrawFn) -> str:
    """params.yaml with a few values written in other ways, lines put in or left out."""
    lines = [line for line in PLAIN.splitlines() if line]
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 7)):
            case 0:
                lines.insert(at, draw(st.sampled_from(LINES)))
            case 1:
                del lines[at]
            case 2:
                column = draw(st.integers(0, len(lines[at])))
                put = draw(st.text(":{}[],&*#?|-<>=!%@`'\"\\ \n\tax0.", min_size=1, max_size=3))
                lines[at] = lines[at][:column] + put + lines[at][column:]
            case _:
                name, colon, _ = lines[at].partition(": ")
                spelling = draw(st.one_of(st.sampled_from(SPELLINGS), st.floats(0, 1).map(repr)))
                lines[at] = name + (colon and colon + spelling)
    return "\n".join(lines) + "\n"


def engines_agree(text: str) -> None:
    """See that text is refused in one line, or that both engines read the same values from it."""
    if refusal(params.check_text, text):
        return
    ours = load_configfile(io.StringIO(text))
    theirs = parse_yaml(text, "params.yaml")
    assert params.check(ours) == params.check(theirs) == params.check(yaml.safe_load(text))
    for name in SECTIONS:
        assert flags(ours[name]) == to_str(theirs[name])


@cases(1200)
@given(texts())
def test_both_engines_read_the_same_or_neither_runs(text):
    engines_agree(text)


@cases(1500)
@given(st.one_of(st.text(max_size=40), st.text(":{}[],&*#?|-<>=!%@`'\"\\ \n\tax0._e", max_size=40)))
def test_any_text_is_refused_in_one_line(text):
    assert refusal(params.check_text, text)


# Flags.

argv = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8
) | st.sampled_from(
    [word for word in SHELL if "\0" not in word] + ["\udcff", "9" * 5000, "1.5", "0"]
)


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A stage and words for it, its files named or not."""
    stage = draw(st.sampled_from([*STAGES]))
    given = list(FILES[stage]) if draw(st.integers(0, 3)) else []
    flag = st.sampled_from(
        [f"--{key}" for kind in STAGES[stage] for key in kind.model_fields]
        + [word for word in FILES[stage] if word.startswith("--")]
        + ["--log", "--unheard", "--help", "-h", "--"]
    )
    for _ in range(draw(st.integers(0, 4))):
        match draw(st.integers(0, 4)):
            case 0:
                given += [draw(argv)]
            case 1:
                given += [draw(flag) + "=" + draw(argv)]
            case 2:
                given += [draw(flag)[: draw(st.integers(1, 9))], draw(argv)]
            case _:
                given += [draw(flag), draw(argv)]
    return stage, given


@cases(2500)
@given(command_lines())
def test_any_command_line_is_read_or_refused_in_one_line(line):
    stage, given = line
    if "-h" in given:
        given.append("--help")
    read(stage, *given)


# The engines themselves.


def other(section: str, **entries: Any) -> str:
    """params.yaml with other entries in one section."""
    return yaml.safe_dump({**DEFAULTS, section: {**DEFAULTS[section], **entries}})


HOSTILE = {
    "a value": other("data", mirror="; touch canary"),
    "a substitution": other("data", mirror="$(touch canary)"),
    "backticks in a list": other("data", sha256=["`touch canary`"] * 4),
    "a flag": other("data", mirror="--output=canary"),
    "a flag in a list": other("data", sha256=["--output=canary"] * 4),
    "a quote": other("data", mirror="'; touch canary; '"),
    "two lines": other("data", mirror="x\ntouch canary"),
    "a wildcard": other("data", mirror="{log}"),
    "a key": other("data", **{"x; touch canary #": 1}),
    "a key with a substitution": other("train", **{"$(touch canary)": 1}),
    "a mapping": other("data", mirror={"; touch canary #": 1}),
    "a section of text": yaml.safe_dump({**DEFAULTS, "data": "; touch canary #"}),
    "another section": yaml.safe_dump({**DEFAULTS, "; touch canary": {"x": 1}}),
    "k": other("runs", latent_dims=["3; touch canary"]),
    "a seed": other("runs", seeds=["$(touch canary)"]),
    "k as a path": other("runs", latent_dims=["../canary"]),
    "a number": other("model", hidden=10**30),
    "octal": reference.as_yaml().replace("hidden: 500", "hidden: 0500"),
    "an object": reference.as_yaml() + "\nx: !!python/object/apply:os.system [touch canary]\n",
    "a template": reference.as_yaml()
    + '\n__use_yte__: true\nx: ?__import__("os").system("touch canary")\n',
}


@pytest.mark.slow
def test_the_engines_refuse_before_anything_runs(tmp_path):
    """Snakemake at once; DVC after `make check`, which `make repro` begins with.

    A plain `dvc repro` puts keys, a section that is text, and what stands in `runs` into its
    commands as they are, without quotes.
    """
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
