"""Documents hold what the results say, wherever they are put, and print as one page."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import test_cli
from aevb.files import InputError
from aevb.report.documents import filled, moved, page, shown

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

The encoder q_φ(z|x) of `a_b`, -1.5 ± 0.2 †, log_px.

    L = E_{z ~ q_φ} <x>
"""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder for the document, the results beside it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results/table.md").write_text("| new |\n|---|\n| ± 2 |\n", encoding="utf-8")
    (tmp_path / "results/a.png").write_bytes(b"\x89PNG not really")
    return tmp_path / "docs"


def test_what_is_shown_is_found():
    assert shown(DOCUMENT) == ["../results/table.md", "../results/a.png"]


def test_files_are_put_in_their_place_and_nothing_else_changes(docs):
    text = filled(DOCUMENT, docs)
    assert "| ± 2 |" in text
    assert "| old |" not in text
    around = [
        re.split(r"<!-- \S+md -->.*?<!-- end -->", one, flags=re.S) for one in (DOCUMENT, text)
    ]
    assert around[0] == around[1]
    assert filled(text, docs) == text


def test_a_file_that_is_missing_is_named(docs):
    (docs / "../results/table.md").unlink()
    with pytest.raises(InputError, match=r"results/table\.md: no such file"):
        filled(DOCUMENT, docs)


def test_links_lead_where_they_led(docs):
    text = moved(DOCUMENT, docs, docs.parent / "results/deep/er")
    assert "[the code](../../../src/a.py#L3)" in text
    assert "![A picture](../../a.png)" in text
    assert "<!-- ../../table.md -->" in text
    assert "(https://example.org/x.md)" in text
    assert "(#end)" in text
    assert moved(text, docs.parent / "results/deep/er", docs) == DOCUMENT
    assert moved(DOCUMENT, docs, docs) == DOCUMENT


class Seen(HTMLParser):
    """The tags of a page, in order, and what they name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names += [str(value) for name, value in attrs if name in ("href", "src")]


def test_a_page_needs_nothing_beside_it(docs):
    text = page(filled(DOCUMENT, docs), docs)
    seen = Seen(text)
    assert seen.names == [
        "https://example.org/x.md",
        "#end",
        "data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode(),
    ]
    assert seen.tags.count("table") == 2
    assert "<title>A title</title>" in text
    assert "the code" in text
    assert "&lt;1" in text
    assert text.count("<span>") == text.count("</span>") == 1
    assert text.count("<a ") == text.count("</a>") == 2


def test_formulas_and_numbers_are_set(docs):
    text = page(filled(DOCUMENT, docs), docs)
    assert "q<sub>φ</sub>(z|x) of <code>a_b</code>, -1.5&nbsp;±&nbsp;0.2&nbsp;†, log_px." in text
    assert "<pre>L = E<sub>z ~ q<sub>φ</sub></sub> &lt;x&gt;\n</pre>" in text


def test_the_stage_writes_both(docs):
    (docs / "a.md").write_text(DOCUMENT, encoding="utf-8")
    outputs = docs / "out/a.md", docs / "out/a.html"
    words = ["--markdown", str(outputs[0]), "--html", str(outputs[1])]
    outcome = test_cli.run("document", "--document", str(docs / "a.md"), *words)
    assert outcome.code == 0, outcome.error
    assert "(../../results/a.png)" in outputs[0].read_text(encoding="utf-8")
    assert "± 2" in outputs[1].read_text(encoding="utf-8")


def test_the_stage_writes_nothing_where_a_picture_is_missing(docs):
    (docs / "a.md").write_text(DOCUMENT, encoding="utf-8")
    (docs / "../results/a.png").unlink()
    words = ["--markdown", str(docs / "b.md"), "--html", str(docs / "b.html")]
    outcome = test_cli.run("document", "--document", str(docs / "a.md"), *words)
    assert outcome.code == 1
    assert "a.png: no such file" in test_cli.the_error(outcome, 1)
    assert not list(docs.glob("b.*"))
