"""Parameters: what params.yaml may hold, what is said when it holds something else."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aevb.plumbing import cli, params, reference
from aevb.plumbing.params import Params, Section, flags
from stages import error_line as the_error
from stages import run_script as run

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "params.yaml"
SECTIONS: dict[str, type[Section]] = {
    name: type(section)
    for name, section in Params()  # its defaults are instances of each section
}


def fields(section: type[Section]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each parameter of a section."""
    return section.model_json_schema()["properties"]


FIELDS = [
    (section, key, schema)
    for section, definition in SECTIONS.items()
    for key, schema in fields(definition).items()
]
EACH_FIELD = pytest.mark.parametrize(
    ("section", "key", "schema"), FIELDS, ids=[f"{section}.{key}" for section, key, _ in FIELDS]
)


SETTINGS = settings(max_examples=50, deadline=None, derandomize=True, database=None)


def check(content: Any) -> Params:
    """`params.check` of the defaults with other entries."""
    if isinstance(content, dict):
        whole: dict[str, Any] = Params().model_dump()
        for name, section in content.items():
            both = isinstance(section, dict) and name in whole
            whole[name] = {**whole[name], **section} if both else section
        content = whole
    return params.check(content)


def complaint(content: Any) -> str:
    """The one line that wrong parameters are told in."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (each caller looks at the text)
        check(content)
    message = str(caught.value)
    assert message.startswith("params.yaml")
    assert len(message.splitlines()) == 1
    return message


# The files in the repository.


def test_the_shipped_parameters_are_valid_and_complete():
    content = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    check(content)
    assert {name: list(section) for name, section in content.items()} == {
        name: list(section.model_fields) for name, section in SECTIONS.items()
    }
    assert list(content) == list(SECTIONS)


def test_the_shipped_parameters_are_commented():
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    assert all("#" in line for line in lines if line)


def test_the_generated_parameters_are_the_defaults():
    text = reference.as_yaml()
    assert check(yaml.safe_load(text)) == Params()
    for _, key, schema in FIELDS:
        assert any(line.startswith(f"  {key}:") and schema["description"] in line
                   for line in text.splitlines())  # fmt: skip


@pytest.mark.parametrize(
    ("word", "path"),
    [("schema", "workflow/schemas/params.schema.json"), ("markdown", "docs/parameters.md")],
)
def test_what_was_generated_is_the_present_one(word, path):
    present = getattr(reference, f"as_{word}")()
    assert (ROOT / path).read_text(encoding="utf-8") == present, "run: make generated"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"type": "integer", "minimum": 1, "maximum": 1000000}, "1 ≤ integer ≤ 1000000"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1.0}, "0 < number ≤ 1"),
        ({"type": "number", "minimum": 0.5, "exclusiveMaximum": 2}, "0.5 ≤ number < 2"),
        ({"type": "array", "items": {"type": "integer", "minimum": 1}}, "list of 1 ≤ integer"),
        ({"type": "string", "pattern": "^a$"}, "text, `^a$`"),
        ({"type": "integer"}, "integer"),
    ],
)
def test_what_a_schema_allows_in_words(schema, words):
    assert reference.allowed(schema) == words


@EACH_FIELD
def test_every_parameter_stands_in_its_table(section, key, schema):
    text = reference.as_markdown()
    table = text[text.index(f"## `{section}`") :].split("\n## ")[0]
    (row,) = (line for line in table.splitlines() if line.startswith(f"| `{key}` |"))
    cells = [cell.replace("\\|", "|") for cell in re.split(r" (?<!\\)\| ", row.strip("| "))]
    default = json.dumps(Params().model_dump()[section][key]).strip('"')
    assert cells[1:] == [reference.allowed(schema), f"`{default}`", schema["description"]]


def test_no_parameter_is_a_switch_or_may_be_null():
    """As flags they would vanish or turn into text."""
    for section, key, schema in FIELDS:
        kinds = (schema, schema.get("items", {}))
        assert all(kind.get("type") not in ("boolean", "null") for kind in kinds), (section, key)
        assert not {"anyOf", "oneOf", "allOf"} & schema.keys(), (section, key)


# What is accepted and what is refused.


def test_defaults_pass_together_and_alone():
    defaults = Params().model_dump()
    assert check(defaults) == check({}) == Params()
    for name, section in defaults.items():
        assert check({name: section}) == Params()
        for key, value in section.items():
            assert check({name: {key: value}}) == Params()


def test_nothing_may_be_left_out():
    for section, key, _ in FIELDS:
        content = Params().model_dump()
        del content[section][key]
        with pytest.raises(ValueError, match=f"^params.yaml: {section}.{key} is missing$"):
            params.check(content)
    with pytest.raises(ValueError, match=r"^params.yaml: data.name is missing$"):
        params.check({})


def limits(schema: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    """Values at the ends of a parameter's range and whether they are inside."""
    step = 1 if schema["type"] == "integer" else 1e-9
    for bound, inwards in (("inimum", step), ("aximum", -step)):
        if (end := schema.get(f"m{bound}")) is not None:
            yield from ((end, True), (end - inwards, False))
        if (end := schema.get(f"exclusiveM{bound}")) is not None:
            yield from ((end + inwards, True), (end, False))


def wrong(schema: dict[str, Any]) -> Iterator[Any]:
    """Values that no parameter with this schema may have."""
    yield from (None, True, {"a": 1}, b"bytes")
    match schema:
        case {"type": "array", "items": items}:
            yield from ([value] for value in wrong(items))
            yield from (1, "text", [[]])
            if schema.get("minItems"):
                yield []
        case {"enum": _}:
            yield from ("unheard of", "", 1, ["text"])
        case {"type": "string", "pattern": pattern}:
            yield from (
                "",
                1,
                ["text"],
                "a b",
                "a;b",
                "$(a)",
                "`a`",
                "a\nb",
                "a\n",
                "'",
                '"',
                "a&b",
            )
            assert pattern.startswith("^")
            assert pattern.endswith("$")
        case {"type": kind}:
            yield from ("1", "1e-3", "text", [1], math.nan, math.inf, -math.inf)
            if kind == "integer":
                yield from (1.0, 1.5)
            yield from (value for value, inside in limits(schema) if not inside)


@EACH_FIELD
def test_wrong_values_are_named(section, key, schema):
    for value in wrong(schema):
        message = complaint({section: {key: value}})
        assert f"{section}.{key}" in message, value


@EACH_FIELD
def test_ranges_hold_their_ends(section, key, schema):
    several = schema["type"] == "array"
    schema = schema.get("items", schema)
    if schema["type"] in ("integer", "number") and "enum" not in schema:
        for value, inside in limits(schema):
            content = {section: {key: [value] if several else value}}
            if inside:
                check(content)
            else:
                complaint(content)
        assert "minimum" in schema or "exclusiveMinimum" in schema


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_keys_are_named(section):
    assert f"{section}.unheard is no known parameter" in complaint({section: {"unheard": 1}})
    assert f"{section} is " in complaint({section: 3})
    assert f"{section} is " in complaint({section: None})
    assert f"{section}s is no known parameter" in complaint({f"{section}s": {}})


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_parameter_is_answered_with_the_right_one(section):
    for name in SECTIONS[section].model_fields:
        assert f"did you mean {section}.{name}?" in complaint({section: {f"{name}_": 1}})
    assert "did you mean train?" in complaint({"trian": {}})
    assert "did you mean model.hidden?" in complaint({"train": {"hidden": 500}})
    assert "did you mean" not in complaint({section: {"unheard": 1}})


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_a_file_without_sections_is_refused(content):
    assert "sections" in complaint(content)


@pytest.mark.parametrize(("key", "values"), [("latent_dims", [3, 20, 3]), ("seeds", [0, 0])])
def test_runs_that_stand_twice_are_named(key, values):
    message = complaint({"runs": {key: values}})
    assert f"runs.{key}" in message
    assert str(values[0]) in message


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_checksums_come_in_fours(count):
    assert "data.sha256" in complaint({"data": {"sha256": ["0" * 64] * count}})
    check({"data": {"sha256": ["0" * 64] * 4}})


def test_all_mistakes_are_told_in_one_line():
    message = complaint({"train": {"patience": 0, "x": 1}, "runs": {"seeds": [-1]}})
    assert all(name in message for name in ("train.patience", "train.x", "runs.seeds"))


def deep(levels: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("a\rb", 1),
        ("a\u2028b", 1),
        ("\x1b[2J", 1),
        ("\ud800", 1),
        (True, 1),
        (("a", "b"), 1),
        ("mirror", deep(100_000)),
        ("mirror", {"a": deep(500)}),
        ("mirror", 16**5000),
        ("mirror", "a b" * 10_000),
        ("mirror", "\ud800"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_line_whatever_stands_there(key, value):
    message = complaint({"data": {key: value}})
    assert message.isprintable()
    assert len(message) < 300


def test_long_lists_are_checked_at_once():
    assert len(check({"runs": {"seeds": list(range(100_000))}}).runs.seeds) == 100_000


@pytest.mark.parametrize(
    "text",
    [
        *("", "- 1", "text", "data:", "data: 3", "yes: {a: 1}", "data: {yes: 1}", "data: {"),
        *("!!bool x", "!!timestamp x", "!!int x", "data: {name: ._}", "data: 2020-13-45"),
        *(
            "[" * 5000,
            f"data: {'9' * 5000}",
            f"data: 0x{'f' * 5000}",
            "? [a]\n: b",
            "data: 1\n---\n",
        ),
        *("data: &a {name: *a}", "!!set {data}", "!!python/object/apply:os.getcwd []"),
        *("a\u2028b: 1", '"\\e[2J": 1', '"\\0": 1', "__use_yte__: true", "data: \0"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_text_that_holds_no_parameters_is_told_in_one_line(text):
    with pytest.raises(ValueError, match=r"^params\.yaml") as caught:
        params.check_text(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("spelling", "ours", "theirs"),
    [("0100", "64", "100"), ("1:30", "90", "'1:30'"), ("0o14", "'0o14'", "12")],
)
def test_what_the_engines_read_differently_is_named(spelling, ours, theirs):
    for key, old in (("hidden", "500"), ("mirror", "none")):
        text = reference.as_yaml().replace(f"{key}: {old}", f"{key}: {spelling}")
        message = ""
        try:
            params.check_text(text)
        except ValueError as error:
            message = str(error)
        assert f".{key} is " in message
        if ours.startswith("'") == (key == "mirror"):  # of the right type to Snakemake
            assert f"is {ours} to Snakemake and {theirs} to DVC" in message


@pytest.mark.parametrize("text", ["1e-3", "1E5", "010x", "1_000.5"])
def test_numbers_that_yaml_reads_as_text_get_advice(text):
    """YAML 1.1, as Snakemake reads it, takes 1e-3 for text; YAML 1.2, as DVC does, for a number."""
    content = yaml.safe_load(f"train: {{learning_rate: '{text}'}}")
    message = complaint(content)
    assert "train.learning_rate" in message
    assert repr(text) in message
    assert "0.001" in message
    assert yaml.safe_load("1e-3") == "1e-3"


# Flags.


def one(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any value that a schema allows."""
    match schema:
        case {"enum": choices}:
            return st.sampled_from(choices)
        case {"type": "array", "items": items}:
            return st.lists(one(items), min_size=schema.get("minItems", 0), max_size=5)
        case {"type": "string", "pattern": pattern}:
            return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)
        case {"type": "integer"}:
            smallest = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf))
            largest = schema.get("maximum", schema.get("exclusiveMaximum", smallest + 10**6) - 1)
            return st.integers(smallest, largest)
        case {"type": "number"}:
            return st.floats(
                schema.get("minimum", schema.get("exclusiveMinimum")),
                schema.get("maximum"),
                exclude_min="exclusiveMinimum" in schema,
            )
    raise AssertionError(schema)


@pytest.mark.parametrize("section", SECTIONS)
@given(data=st.data())
@SETTINGS
def test_flags_bring_every_valid_section_to_its_stage(section, data):
    definition = SECTIONS[section]
    strategy = st.fixed_dictionaries(
        {key: one(schema) for key, schema in fields(definition).items()}
    )
    values = data.draw(strategy)
    parser = cli.parser("A stage.", definition)
    read = cli.settings(definition, parser.parse_args(shlex.split(flags(values))))
    assert read == definition(**values)
    assert read.model_dump() == values


@pytest.mark.parametrize(
    "mirror", ["-", "-x", "-1", "--", "--output", "--sha256", "=", "~/x", "é²"]
)
def test_a_mirror_never_passes_for_a_flag(mirror):
    """It is refused before any stage runs, or it reaches its stage."""
    try:
        valid = check({"data": {"mirror": mirror}}).data
    except ValueError:
        return
    parser = cli.parser("A stage.", params.Data)
    words = shlex.split(flags({"mirror": mirror, "sha256": []}))
    assert cli.settings(params.Data, parser.parse_args(words)) == valid


@pytest.mark.parametrize("section", SECTIONS)
def test_without_flags_a_stage_takes_the_defaults(section):
    parser = cli.parser("A stage.", SECTIONS[section])
    assert cli.settings(SECTIONS[section], parser.parse_args([])) == SECTIONS[section]()


@SETTINGS
@given(st.dictionaries(st.from_regex("[a-z]+", fullmatch=True), st.lists(st.text())))
def test_flags_are_quoted_word_by_word(section):
    filled = {key: values for key, values in section.items() if values}  # DVC drops empty lists
    expected = [word for key, values in filled.items() for word in (f"--{key}", *values)]
    assert shlex.split(flags(section)) == expected


def test_a_shell_sees_no_metacharacters():
    nasty = ["; touch x", "$(touch x)", "`touch x`", "a b", "*", "~", "'", '"', "\\", "a\nb", "#"]
    nasty += ["", "&& touch x", "| cat", "> x", "{a,b}", "!x", "$HOME", "é"]
    command = f"printf '%s\\0' {flags({'a': nasty, 'b': nasty[0]})}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert result.stdout.decode().split("\0")[:-1] == ["--a", *nasty, "--b", nasty[0]]


# The script.


@pytest.mark.parametrize("word", ["yaml", "schema", "markdown"])
def test_the_script_prints(word):
    assert run("params", word) == (0, getattr(reference, f"as_{word}")(), "")


def test_the_script_checks(tmp_path):
    assert run("params", "check", SHIPPED) == (0, "", "")
    path = tmp_path / "params.yaml"
    for content, words in [
        ("train: {patience: 0}", "train.patience"),
        ("train: {patience: 1", "expected"),
        ("train: 1\ntrain: 1\n\t", ""),
        (None, "No such file"),
    ]:
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        line = the_error(run("params", "check", path), 1)
        assert line.startswith("params: error: ")
        assert words in line
    assert "'unheard'" in the_error(run("params", "unheard"), 2)


def test_the_definition_is_light():
    """Snakemake imports it at every call."""
    program = """
import sys
for name in ("torch", "numpy", "tqdm", "safetensors"):
    sys.modules[name] = None
from aevb.plumbing import params, studies
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
