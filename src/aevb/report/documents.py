"""Documents that show results: put in from files, moved with their links, printed as one page.

A document is Markdown. What stands between `<!-- FILE.md -->` and `<!-- end -->` is the text of a
file, whose place is given as in a link: relative to the document.
"""

import base64
import html
import os.path
import re
from pathlib import Path

from aevb.files import read_bytes

BLOCK = re.compile(r"(?<=<!-- )(\S+\.md)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
RELATIVE = r"(?!\w+:|#)"
LINK = re.compile(rf"(?<=\]\(){RELATIVE}[^)\s]+(?=\))|(?<=<!-- )\S+\.md(?= -->)")
PICTURE = re.compile(rf"!\[[^\]]*\]\(({RELATIVE}[^)\s]+)\)")
STYLE = """
body { max-width: 62em; margin: 2em auto; padding: 0 1em; line-height: 1.5;
  font-family: system-ui, sans-serif; color: #111; background: #fff }
p:not(:has(img)) { max-width: 50em }
img { max-width: 100%; display: block; margin: 1em 0 }
table { border-collapse: collapse; margin: 1em 0; font-size: 0.9em; display: block;
  overflow-x: auto }
th, td { border: 1px solid #bbb; padding: 0.3em 0.6em; text-align: left }
code, pre { font-family: monospace, monospace; font-size: 0.95em }  /* twice: else it is smaller */
pre { background: #f4f4f4; padding: 0.8em; overflow-x: auto }
sub { line-height: 0 }
@media print {
  body { margin: 0; font-size: 0.8em }
  table { font-size: 0.8em }
  pre, table, img { break-inside: avoid }
  h2, h3 { break-after: avoid }
}
"""


def shown(text: str) -> list[str]:
    """The files whose text or picture a document shows, as it names them."""
    return [*(found[1] for found in BLOCK.finditer(text)), *PICTURE.findall(text)]


def filled(text: str, folder: Path) -> str:
    """A document that lies in `folder`, with the present text of the files that it shows.

    Raises:
        InputError: if one is missing.
    """

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}\n{read_bytes(folder / found[1]).decode().strip()}\n\n"

    return BLOCK.sub(block, text)


def moved(text: str, source: Path, target: Path) -> str:
    """A document from one folder for another: its relative links lead where they led."""

    def path(found: re.Match[str]) -> str:
        return Path(os.path.relpath(source / found[0], target)).as_posix()

    return LINK.sub(path, text)


def typeset(text: str) -> str:
    """Text or a formula as HTML: q_φ with its subscript, a number with its ± and † on one line."""
    text = re.sub(r" (?=[±†])|(?<= ±) ", "&nbsp;", html.escape(text, quote=False))
    text = re.sub(r"(?<!\w\w)_(\w)(?!\w)", r"<sub>\1</sub>", text)
    return re.sub(r"_\{([^{}]+)\}", r"<sub>\1</sub>", text)


def page(text: str, folder: Path) -> str:
    """A document as one HTML page that needs nothing beside it.

    Pictures are part of it; of links into the project the text remains.

    Raises:
        InputError: if a picture is missing.
    """
    from markdown_it import MarkdownIt  # here, since the workflow reads documents without it

    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type == "code_block":  # an indented one: a formula
            token.type, token.content = "html_block", f"<pre>{typeset(token.content)}</pre>\n"
    lost = False
    for token in (child for block in tokens for child in block.children or []):
        if token.type == "text":
            token.type, token.content = "html_inline", typeset(token.content)
        elif token.type == "image":
            picture = base64.b64encode(read_bytes(folder / str(token.attrGet("src")))).decode()
            token.attrSet("src", f"data:image/png;base64,{picture}")
        elif token.type == "link_open":
            lost = re.match(RELATIVE, str(token.attrGet("href"))) is not None
        if token.type in ("link_open", "link_close") and lost:
            token.tag, token.attrs = "span", {}
    body = parser.renderer.render(tokens, parser.options, {})
    titles = (token.content for token in tokens if token.type == "inline")
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{next(titles, '')}</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )
