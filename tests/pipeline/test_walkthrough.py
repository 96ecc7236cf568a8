"""Every command that README.md and docs/*.md show is run, page by page, in a small clone.

What is run: the sh blocks, their `# or: …`, and what stands in `code` and in no block.
"""

import re
import sys
from pathlib import Path

import pytest
from test_docs import PAGES, TOOLS, blocks

from graph import changed, read_values, run, write_values
from repository import clone, commit, copy

LEFT_OUT = {  # how a command begins: why it is not run
    "make slurm": "needs the network; make slurm-test is in CI",
    "$EDITOR": "waits for somebody",
    "tmux": "waits for somebody",
    "srun": "needs SLURM: test_slurm",
    "sbatch": "needs SLURM: test_slurm",
    "squeue": "needs SLURM: test_slurm",
    "snakemake --workflow-profile": "needs SLURM: test_slurm",
    "tail -F": "never ends",
    "kill": "no training lives: test_resume",
    "make test": "this is one of them",
    "make full-test": "twenty minutes",
    "pytest": "in CI anyway",
    "make bench": "ten minutes",
}
INSTEAD = {  # what stands in a page: what is run for it
    "/somewhere/store": "../store",
    " && ": "\n",  # bash -e passes over what fails before it
    "dot -Tsvg": "cat",  # Graphviz is no part of the environment
    "make generated": "make generated; git restore params.yaml",  # the defaults are not small
    # It goes on behind the prompt.
    "dvc queue start": "dvc queue start\ntimeout 300 bash -c "
    "'while dvc queue status | grep -E \"Queued|Running\"; do sleep 2; done'",
}
SMALL = {
    "runs": {"latent_dims": [3]},
    "ladder": {"images": 2, "samples": 10},
    "ais": {"images": 2, "chains": 1, "temperatures": 2, "leapfrog": 1, "iwae_k": 1},
    "estimators": {"images": 2, "samples": 2},
    "latents": {"samples": 1},
    "traverse": {"grid": 2, "dimensions": 1, "steps": 2, "pairs": 1},
    "classifier": {"epochs": 1},
    "fidelity": {"images": 60},
}


def scripts() -> dict[str, str]:
    """The commands of each page that has some, in their order, as they stand there."""
    found = {}
    elsewhere = "\n".join(block for page in PAGES.values() for block in blocks(page, "sh"))
    for name, page in PAGES.items():
        parts = []
        for match in re.finditer(r"^```sh\n(.*?)^```$|^```.*?^```$|`([^`]+)`", page, re.M | re.S):
            block, code = match.groups(default="")
            if code.startswith(tuple(f"{tool} " for tool in TOOLS)) and code not in elsewhere:
                block = f"{code}\n"
                elsewhere += block
            parts.append(re.sub(r"# or: (.*)", r"\n\1", block))
        found[name] = "".join(parts)
    return {name: text for name, text in found.items() if text}


SCRIPTS = scripts()


def runnable(text: str) -> str:
    """A script without what is left out, to the end of its last line, and with what is replaced."""
    for begin in LEFT_OUT:
        text = re.sub(rf"^{re.escape(begin)}(.*[|\\]\n)*.*\n", "", text, flags=re.MULTILINE)
    for old, new in INSTEAD.items():
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def prepared(origin: Path, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with an environment in which all that `make handin` needs is made and committed."""
    tree = clone(origin, tmp_path_factory.mktemp("prepared") / "tree")
    values = read_values(tree)
    for section, entries in SMALL.items():
        values = changed(values, section, **entries)
    write_values(tree, values)
    for study in (tree / "studies").glob("*.yaml"):
        text = re.sub(r"max_epochs: \d+", "max_epochs: 2", study.read_text(encoding="utf-8"))
        text = re.sub(r"(latent_dims|seeds): \[(\d+),[^]]*", r"\1: [\2", text)
        study.write_text(text, encoding="utf-8")
    for block in (block for page in PAGES.values() for block in blocks(page, "yaml")):
        if name := re.match(r"# (studies/[\w-]+\.yaml)\n", block):
            (tree / name[1]).write_text(block, encoding="utf-8")
    (tree / "my.yaml").write_text("reconstruct: {images: 3}\n", encoding="utf-8")
    (tree / "my-images").symlink_to(mirror)
    (tree / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (tree / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (tree / ".venv" / ".ready").touch()
    run("make handin", tree)
    run("snakemake --cores 2 all register", tree)
    run("git branch -M main", tree)
    commit(tree, "results")
    run("git tag v1.0", tree)
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("page", SCRIPTS)
def test_every_command_of_a_page_runs(page: str, prepared: Path, tmp_path: Path) -> None:
    tree = copy(prepared, tmp_path)
    (tmp_path / "other").symlink_to(prepared)
    (tmp_path / "script").write_text(runnable(SCRIPTS[page]), encoding="utf-8")
    run("bash -e -x -o pipefail ../script", tree)


@pytest.mark.parametrize("text", [*(f"\n{begin}" for begin in LEFT_OUT), *INSTEAD])
def test_what_is_not_run_as_it_stands_is_shown_somewhere(text: str) -> None:
    assert text in "\n".join(["", *SCRIPTS.values()])
