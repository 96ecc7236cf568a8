"""Insert the present results into a Markdown document, and print it as one page of HTML.

The text between `<!-- FILE.md -->` and `<!-- end -->` is replaced by the text of the file; its path
is relative to the document, as in a link.
"""

import base64
import os.path
import re
from pathlib import Path
from typing import Annotated

from aevb.files import read_bytes, write_text
from aevb.plumbing import cli

RELATIVE = r"(?!\w+:|#)[^)\s]+"
BLOCK = re.compile(r"(?<=<!-- )(\S+\.md)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
PATH = re.compile(rf"(?<=\]\(){RELATIVE}(?=\))|(?<=<!-- )\S+\.md(?= -->)")
LINK = re.compile(rf"(?<!!)\[([^\]]*)\]\({RELATIVE}\)")
PICTURE = re.compile(rf"(?<=!\[)([^\]]*)\]\(({RELATIVE})(?=\))")
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ max-width: 62em; margin: 2em auto; padding: 0 1em; font: 16px/1.5 sans-serif }}
img {{ max-width: 100%; display: block; margin: 1em 0 }}
table {{ border-collapse: collapse; font-size: 0.9em; display: block; overflow-x: auto }}
th, td {{ border: 1px solid #bbb; padding: 0.3em 0.6em; text-align: left }}
pre {{ background: #f4f4f4; padding: 0.8em; overflow-x: auto }}
@media print {{ pre, table, img {{ break-inside: avoid }} }}
</style>
{body}</html>
"""


def shown(text: str) -> list[str]:
    """The files whose text or picture a document shows, as the document names them."""
    texts, pictures = BLOCK.findall(text), PICTURE.findall(text)
    return [path for path, _ in texts] + [path for _, path in pictures]


def filled(text: str, folder: Path) -> str:
    """A document in `folder`, with the present text of the files that it shows.

    Raises:
        InputError: if one is missing.
    """

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}\n{read_bytes(folder / found[1]).decode().strip()}\n\n"

    return BLOCK.sub(block, text)


def moved(text: str, source: Path, target: Path) -> str:
    """A document moved from one folder to another, its relative links adapted."""
    return PATH.sub(lambda path: Path(os.path.relpath(source / path[0], target)).as_posix(), text)


def page(text: str, folder: Path) -> str:
    """A document as one self-contained HTML page.

    Pictures are embedded; links to files of the project are replaced by their text.

    Raises:
        InputError: if a picture is missing.
    """
    from markdown_it import MarkdownIt  # here, since the workflow imports this file without it

    def embedded(picture: re.Match[str]) -> str:
        content = base64.b64encode(read_bytes(folder / picture[2])).decode()
        return f"{picture[1]}](data:image/png;base64,{content}"

    text = LINK.sub(r"\1", PICTURE.sub(embedded, text))
    text = re.sub(r" (?=[±†])|(?<=±) ", "\N{NO-BREAK SPACE}", text)
    body = MarkdownIt("commonmark").enable("table").render(text)
    return PAGE.format(title=text.partition("\n")[0].lstrip("# "), body=body)


def main(
    document: Annotated[Path, "the document (.md)"],
    markdown: Annotated[Path, "where to write it with the results (.md)"],
    html: Annotated[Path | None, "where to write the page (.html)"] = None,
) -> None:
    """Fill the document, write it and its page."""
    source, target = document.parent, markdown.parent
    text = filled(read_bytes(document).decode(), source)
    if html is not None:
        write_text(html, page(text, source))
    write_text(markdown, moved(text, source, target))
    cli.log.info("document: wrote %s", markdown)


if __name__ == "__main__":
    cli.run(main, __doc__)
