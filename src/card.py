"""Write the model card of one model: what it is, how good it is, what it is for."""

from argparse import Namespace
from pathlib import Path

from aevb.files import read_json, read_tensors, write_text
from aevb.plumbing import cli
from aevb.report.cards import card


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--metrics", type=Path, required=True, help="its metrics on the test set (.json)")
    add("--card", type=Path, required=True, help="the card to write (.md)")
    return parser


def main(args: Namespace) -> None:
    """Read the model's description and metrics, write the card."""
    _, metadata = read_tensors(args.model, "model")
    write_text(args.card, card(metadata, read_json(args.metrics)))
    cli.log.info("card: wrote %s", args.card)


if __name__ == "__main__":
    cli.run(main, arguments())
