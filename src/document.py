"""Insert the present results into a Markdown document, or typeset it with them as HTML and PDF.

The text between `<!-- FILE.md -->` and `<!-- end -->` is replaced by the text of the file; its path
is relative to the document, as in a link.
"""

import re
from pathlib import Path
from typing import Annotated

from aevb.files import read_bytes, write_bytes, write_text
from aevb.plumbing import cli

import pypandoc
import typst

RELATIVE = r"(?!\w+:|#)[^)\s]+"
BLOCK = re.compile(r"(?<=<!-- )(\S+\.md)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
LINK = re.compile(rf"(?<!!)\[([^\]]*)\]\({RELATIVE}\)")
PICTURE = re.compile(rf"(?<=!\[)([^\]]*)\]\(({RELATIVE})(?=\))")


def filled(text: str, folder: Path) -> str:
    """A document in `folder` with the present text of its files; InputError if one is missing."""

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}\n{read_bytes(folder / found[1]).decode().strip()}\n\n"

    return BLOCK.sub(block, text)


def typeset(text: str, folder: Path) -> tuple[str, bytes]:
    """A document in `folder` as one HTML page and as PDF, both with its pictures inside.

    Links to files of the project are replaced by their text. A missing picture is an InputError.
    """

    def absolute(picture: re.Match[str]) -> str:
        read_bytes(folder / picture[2])  # pandoc would only warn
        return f"{picture[1]}](<{(folder / picture[2]).resolve()}>"

    def pandoc(to: str) -> str:
        template = f"--template={Path(__file__).with_suffix(f'.{to}')}"
        options = ["--shift-heading-level-by=-1", "--embed-resources", "--mathml", "--toc"]
        options += [template, "--toc-depth=1"]
        return str(pypandoc.convert_text(text, to, "gfm+implicit_figures+smart", options))

    text = LINK.sub(r"\1", PICTURE.sub(absolute, text))
    one_line = r" (?=[±†%])|(?<=±) |(?<=[ (*][kK]) (?==)|(?<=[kK] =) "  # 1 ± 2, 5 %, k = 3
    text = re.sub(one_line, "\N{NO-BREAK SPACE}", text)
    text = re.sub(r"(?<=[| \[])-(?=\d)", "\N{MINUS SIGN}", text)
    source = pandoc("typst").encode()
    # Its annotations ask for one type of source and root.
    pdf: bytes = typst.compile(source, root="/", ignore_system_fonts=True)  # type: ignore[type-var]
    return pandoc("html"), pdf


def main(
    document: Annotated[Path, "the document (.md)"],
    html: Annotated[Path | None, "the page to write (.html)"] = None,
    pdf: Annotated[Path | None, "the PDF to write"] = None,
) -> None:
    """Insert the results into the document; with --html and --pdf, write only these files."""
    text = filled(read_bytes(document).decode(), document.parent)
    if html and pdf:
        page, paper = typeset(text, document.parent)
        write_text(html, page)
        write_bytes(pdf, paper)
    else:
        write_text(document, text)


if __name__ == "__main__":
    cli.run(main, __doc__)
