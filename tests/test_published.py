"""The documents show results in marked places; `make lint` compares them with the commit."""

from pathlib import Path

from aevb.report.documents import shown

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_some_documents_show_results():
    """A marker that is misspelt would show nothing, for ever."""
    texts = (page.read_text(encoding="utf-8") for page in PAGES)
    names = {Path(name).name for text in texts for name in shown(text)}
    assert {"table.md", "differences.md", "observations.md", "samples.png"} <= names
