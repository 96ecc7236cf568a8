"""CITATION.cff agrees with the other files of the project.

The required fields are those of the Citation File Format 1.2.0.
"""

import tomllib

from ruamel.yaml import YAML

from conftest import ROOT

CITATION = YAML(typ="safe", pure=True).load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_has_the_fields_that_the_format_requires():
    assert CITATION["cff-version"] == "1.2.0"
    for entry in ({"type": CITATION["type"], **CITATION}, *CITATION["references"]):
        assert all(entry[key] for key in ("type", "title", "authors"))
        for author in entry["authors"]:
            assert author.keys() in ({"name"}, {"family-names", "given-names"})
    assert CITATION["message"]


def test_it_agrees_with_the_licence_and_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (CITATION["version"], CITATION["license"]) == (project["version"], project["license"])
    (author,) = CITATION["authors"]
    assert author["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    data = next(entry for entry in CITATION["references"] if entry["type"] == "data")
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert data["url"] in readme
    assert data["license"].replace("-", " ").replace("CC BY SA", "CC BY-SA") in readme
    assert all(author["family-names"] in readme for author in data["authors"])


def test_it_names_the_paper():
    paper = next(entry for entry in CITATION["references"] if entry["type"] == "article")
    assert paper["url"] in (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["url"].rpartition("/")[2] in paper["doi"]
