"""Insert the present results into a Markdown document, and print it as one page of HTML.

The text between `<!-- FILE.md -->` and `<!-- end -->` is replaced by the text of the file; its path
is relative to the document, as in a link.
"""

import base64
import html
import os.path
import re
from argparse import SUPPRESS, Namespace
from pathlib import Path

from aevb.files import read_bytes, write_text
from aevb.plumbing import cli

BLOCK = re.compile(r"(?<=<!-- )(\S+\.md)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
RELATIVE = r"(?!\w+:|#)"
LINK = re.compile(rf"(?<=\]\(){RELATIVE}[^)\s]+(?=\))|(?<=<!-- )\S+\.md(?= -->)")
PICTURE = re.compile(rf"!\[[^\]]*\]\(({RELATIVE}[^)\s]+)\)")
STYLE = """
body { max-width: 62em; margin: 2em auto; padding: 0 1em; font: 16px/1.5 sans-serif }
img { max-width: 100%; display: block; margin: 1em 0 }
table { border-collapse: collapse; font-size: 0.9em; display: block; overflow-x: auto }
th, td { border: 1px solid #bbb; padding: 0.3em 0.6em; text-align: left }
pre { background: #f4f4f4; padding: 0.8em; overflow-x: auto }
sub { line-height: 0 }
@media print {
  body { margin: 0; font-size: 12px }
  pre, table, img { break-inside: avoid }
}
"""


def shown(text: str) -> list[str]:
    """The files whose text or picture a document shows, as the document names them."""
    return [*(found[1] for found in BLOCK.finditer(text)), *PICTURE.findall(text)]


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

    def path(found: re.Match[str]) -> str:
        return Path(os.path.relpath(source / found[0], target)).as_posix()

    return LINK.sub(path, text)


def typeset(text: str) -> str:
    """Text as HTML: q_φ with a subscript, a number with its ± and † on one line."""
    text = re.sub(r" (?=[±†])|(?<= ±) ", "&nbsp;", html.escape(text, quote=False))
    text = re.sub(r"(?<!\w\w)_(\w)(?!\w)", r"<sub>\1</sub>", text)
    return re.sub(r"_\{([^{}]+)\}", r"<sub>\1</sub>", text)


def page(text: str, folder: Path) -> str:
    """A document as one self-contained HTML page.

    Pictures are embedded; links to files of the project are replaced by their text.

    Raises:
        InputError: if a picture is missing.
    """
    from markdown_it import MarkdownIt  # here, since the workflow imports this file without it

    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type == "code_block":  # an indented one: a formula
            token.type, token.content = "html_block", f"<pre>{typeset(token.content)}</pre>\n"
    relative = False
    for token in (child for block in tokens for child in block.children or []):
        if token.type == "text":
            token.type, token.content = "html_inline", typeset(token.content)
        elif token.type == "image":
            picture = base64.b64encode(read_bytes(folder / str(token.attrGet("src")))).decode()
            token.attrSet("src", f"data:image/png;base64,{picture}")
        elif token.type == "link_open":
            relative = re.match(RELATIVE, str(token.attrGet("href"))) is not None
        if token.type in ("link_open", "link_close") and relative:
            token.tag, token.attrs = "span", {}
    body = parser.renderer.render(tokens, parser.options, {})
    title = next((token.content for token in tokens if token.type == "inline"), "")
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )


def arguments() -> cli.Parser:
    """The command line of this script."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--document", type=Path, required=True, help="the document (.md)")
    add("--markdown", type=Path, required=True, help="where to write it with the results (.md)")
    add("--html", type=Path, default=SUPPRESS, help="where to write the page (.html)")
    return parser


def main(args: Namespace) -> None:
    """Fill the document, write it and its page."""
    source, target = args.document.parent, args.markdown.parent
    text = filled(read_bytes(args.document).decode(), source)
    if "html" in args:
        write_text(args.html, page(text, source))
    write_text(args.markdown, moved(text, source, target))
    cli.log.info("document: wrote %s", args.markdown)


if __name__ == "__main__":
    cli.run(main, arguments())
