# What the rules share: the checked parameters, their flags, file names.

import os
import secrets
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "src")))
from aevb.plumbing import checking, dependencies

# `python` in shell commands is the Python that runs Snakemake, even if .venv is not activated.
# It is preceded by workflow/bin/python, which runs stages in forks of one process.
os.environ["PATH"] = os.pathsep.join(
    [workflow.basedir + "/workflow/bin", os.path.dirname(sys.executable), *os.get_exec_path()]
)
os.environ["AEVB_ENGINE"] = f"{os.getpid()}-{secrets.token_hex(8)}"

# On a cluster, the runs of a job are one group, with the cores of the job, also within the job.
if plugin := sys.modules.get("snakemake_executor_plugin_slurm"):
    plugin.common_settings.pass_group_args = True
if "SLURM_CPUS_PER_TASK" in os.environ and not workflow.is_main_process:
    workflow.global_resources["_cores"] = int(os.environ["SLURM_CPUS_PER_TASK"])

os.environ["TQDM_DISABLE"] = "1"  # no progress bars, since several jobs write to one terminal


wildcard_constraints:
    k=r"\d+",
    seed=r"\d+",
    study=r"(studies/[\w-]+/[\w-]+/)?",  # empty: the experiment of params.yaml
    name=r"[\w-]+",  # of a study


try:
    # Checked first, because Snakemake runs the Python code in a file that says `__use_yte__`.
    checked = checking.check(checking.read_yaml(Path("params.yaml")))
except ValueError as error:
    raise WorkflowError(str(error)) from None


configfile: "params.yaml"


try:
    for path in workflow.overwrite_configfiles:
        file = os.path.relpath(path)
        checked = checking.check(checking.read_yaml(Path(file)), f"--configfile {file}", checked)
    # Snakemake reads the numbers in `--config train={decay: 1}` as text.
    checking.check(config, "--config (for numbers, use --configfile)")
    STUDIES = checking.read_studies(Path("studies"), config)
except ValueError as error:
    raise WorkflowError(str(error)) from None


def values(study):
    """The parameters of params.yaml, or those of a variant of a study, `studies/NAME/VARIANT/`."""
    if not study:
        return config
    _, name, variant, _ = study.split("/")
    return STUDIES[name][variant]


def flags(*sections):
    """Sections of the parameters as flags, the same text that DVC makes of them."""

    def of(wildcards):
        own = values(getattr(wildcards, "study", ""))
        return " ".join(checking.flags(own[section]) for section in sections)

    return of


def code(stage):
    """The script of a stage and the library files that it imports."""
    return dependencies.code_of(f"src/{stage}.py")


def research_code(stage):
    """The same for a stage of src/research.py, which loads its module by name."""
    return dependencies.code_of("src/research.py", f"src/aevb/research/{stage}.py")


def every_run(study, *patterns):
    """File names for all latent dimensions and seeds of params.yaml or of a study's variant."""
    runs = values(study)["runs"]
    files = [str(pattern) for pattern in patterns]  # without their marks for the report
    return expand(files, study=study, k=runs["latent_dims"], seed=runs["seeds"])


def reported(file, caption, category, **labels):
    """An output in the report of `snakemake --report`, with workflow/report/CAPTION.rst.

    It is also labelled with its k, seed, variant and study, as far as it has them.
    """

    def all_labels(wildcards):
        found = {name: wildcards.get(name) for name in ("k", "seed")}
        found["variant"] = Path(wildcards.get("study", "")).name
        found["study"] = wildcards.get("name")
        return {name: text for name, text in (found | labels).items() if text}

    caption = f"../report/{caption}.rst"
    return report(file, caption=caption, category=category, labels=all_labels)


def a_job(wildcards):
    """The group of the stages of a run, if a profile says how many runs share a job."""
    return "run" if "run" in workflow.group_settings.group_components else None


def found_on_the_runs(wildcards):
    """What the stages of src/research.py make of every run."""
    stages = (rules.inference_gap, rules.gradient_variance, rules.latents, rules.sample_quality)
    return every_run(wildcards.study, *(file for stage in stages for file in stage.output))
