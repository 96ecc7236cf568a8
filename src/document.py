"""Put the present results into a document, and print it as one page of HTML.

The document is Markdown; the files that it shows stand between `<!-- FILE.md -->` and
`<!-- end -->`.
"""

from argparse import SUPPRESS, Namespace
from pathlib import Path

from aevb.files import read_bytes, write_text
from aevb.plumbing import cli
from aevb.report.documents import filled, moved, page


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--document", type=Path, required=True, help="the document (.md)")
    add("--markdown", type=Path, required=True, help="where to write it with the results (.md)")
    add("--html", type=Path, default=SUPPRESS, help="the page to write (.html)")
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
