"""Results in documents: inserted, moved with their links, and shown as one HTML page."""

import base64
import re
from pathlib import Path

import pytest

import document
from aevb.files import InputError
from conftest import ROOT
from document import filled, moved, page, shown
from stages import call_main

DOCUMENT = """# A title

See [the code](../src/a.py#L3), [a page](https://example.org/x.md) and [below](#end).

<!-- ../results/table.md -->
| old |
<!-- end -->

<!-- bench -->
kept
<!-- end -->

![A picture](../results/a.png)

| k | 3 |
|---|---|
| ± | <1 |
"""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """The folder of the document, next to the folder of the results."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results/table.md").write_text("| new |\n|---|\n| ± 2 |\n", encoding="utf-8")
    (tmp_path / "results/a.png").write_bytes(b"\x89PNG not really")
    return tmp_path / "docs"


def test_the_shown_files_are_found():
    assert shown(DOCUMENT) == ["../results/table.md", "../results/a.png"]


def test_files_are_inserted_and_nothing_else_changes(docs):
    text = filled(DOCUMENT, docs)
    assert "| ± 2 |" in text
    assert "| old |" not in text
    around = [
        re.split(r"<!-- \S+md -->.*?<!-- end -->", one, flags=re.S) for one in (DOCUMENT, text)
    ]
    assert around[0] == around[1]
    assert filled(text, docs) == text


def test_links_of_a_moved_document_have_the_same_targets(docs):
    text = moved(DOCUMENT, docs, docs.parent / "results/deep/er")
    assert "[the code](../../../src/a.py#L3)" in text
    assert "![A picture](../../a.png)" in text
    assert "<!-- ../../table.md -->" in text
    assert "(https://example.org/x.md)" in text
    assert "(#end)" in text
    assert moved(text, docs.parent / "results/deep/er", docs) == DOCUMENT
    assert moved(DOCUMENT, docs, docs) == DOCUMENT


def test_a_page_is_self_contained(docs):
    text = page(filled(DOCUMENT, docs), docs)
    picture = base64.b64encode(b"\x89PNG not really").decode()
    assert re.findall(r'(?:href|src)="(.*?)"', text) == [
        "https://example.org/x.md",
        "#end",
        f"data:image/png;base64,{picture}",
    ]
    assert "See the code, <a" in text
    assert "\N{NO-BREAK SPACE}".join(("<td>±", "2</td>")) in text
    assert text.count("<table>") == 2
    assert "<title>A title</title>" in text
    assert "&lt;1" in text


def write(docs: Path) -> tuple[Path, Path]:
    """Run the script on docs/a.md."""
    (docs / "a.md").write_text(DOCUMENT, encoding="utf-8")
    outputs = docs / "out/a.md", docs / "out/a.html"
    words = ["--document", docs / "a.md", "--markdown", outputs[0], "--html", outputs[1]]
    call_main(document.main, *words)
    return outputs


def test_the_script_writes_the_document_and_its_page(docs):
    markdown, html = write(docs)
    assert "(../../results/a.png)" in markdown.read_text(encoding="utf-8")
    assert "<th>new</th>" in html.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["a.png", "table.md"])
def test_the_script_names_a_missing_file_and_writes_nothing(name, docs):
    (docs / "../results" / name).unlink()
    with pytest.raises(InputError, match=f"results/{name}: no such file"):
        write(docs)
    assert not (docs / "out").exists()


def test_the_documents_of_this_project_show_results():
    """A misspelt marker would never be replaced; `make lint` checks the text of the others."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    names = {Path(name).name for path in pages for name in shown(path.read_text(encoding="utf-8"))}
    assert {"table.md", "discussion.md", "samples.png"} <= names
