# What the rules share: checked parameters, flags, file names.

import os
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "src")))
from aevb.report import documents
from aevb.plumbing import dependencies, params, studies

# `python` in the commands is the one that runs Snakemake, also where .venv is not activated.
python = Path(sys.executable).parent
os.environ.update(PATH=os.pathsep.join([str(python), *os.get_exec_path()]))


wildcard_constraints:
    k=r"\d+",
    seed=r"\d+",
    study=r"(studies/[\w-]+/[\w-]+/)?",  # empty: the experiment of params.yaml
    name=r"[\w-]+",  # of a study


try:
    # Before Snakemake reads it: it runs the Python code in a file that says `__use_yte__`.
    params.check_text(Path("params.yaml").read_text(encoding="utf-8"))
except (OSError, ValueError) as error:
    raise WorkflowError(str(error)) from None


configfile: "params.yaml"


try:
    params.check(config)  # with what --config and --configfile put over it
    STUDIES = studies.read_studies(Path("studies"), config)
except ValueError as error:
    raise WorkflowError(str(error)) from None


def values(study):
    """The parameters of the experiment, or of a variant of a study."""
    _, name, variant, _ = f"{study}///".split("/", 3)
    return STUDIES[name][variant] if name else config


def flags(*sections):
    """Sections of the parameters as flags, the same string that DVC makes of them."""

    def of(wildcards):
        own = values(getattr(wildcards, "study", ""))
        return " ".join(params.flags(own[section]) for section in sections)

    return of


def training_threads(wildcards):
    """How many threads a training takes, which decides its rounding."""
    return values(wildcards.study)["train"]["threads"]


def code(stage):
    """The script of a stage and the library files that decide its bytes, derived from imports."""
    return dependencies.code_of(f"src/{stage}.py")


def research_code(stage):
    """The same for a stage of src/research.py, which loads its module by name."""
    return dependencies.code_of("src/research.py", f"src/aevb/research/{stage}.py")


def every_run(study, *patterns):
    """File names for each latent dimension and seed of the experiment, or of a study's variant."""
    runs = values(study)["runs"]
    files = [str(pattern) for pattern in patterns]  # without their marks for the report
    return expand(files, study=study, k=runs["latent_dims"], seed=runs["seeds"])


def reported(file, caption, category, **labels):
    """An output that `snakemake --report` shows, with workflow/report/CAPTION.rst.

    A report of a study also says of which variant it is.
    """

    def with_variant(wildcards):
        variant = wildcards.study.split("/")[2:3]
        texts = {name: text.format_map(wildcards) for name, text in labels.items()}
        return texts | ({"variant": variant[0]} if variant else {})

    caption = f"../report/{caption}.rst"
    return report(file, caption=caption, category=category, labels=with_variant)


def of_a_run(file, caption, category, **labels):
    """An output that the report shows, found by its k and seed."""
    return reported(file, caption, category, k="{k}", seed="{seed}", **labels)


def a_run(wildcards):
    """The group of what follows one training, where a profile's group-components ask for it.

    Its name has no slashes, with which Snakemake cannot submit it.
    """
    if "a_run" not in workflow.group_settings.group_components:
        return None
    parts = Path(f"{wildcards.study}k{wildcards.k}-seed{wildcards.seed}").parts
    name = "-".join(parts)
    workflow.parent_groupids[name] = "a_run"
    return name


def compared(file, name):
    """A table or figure of all runs, shown in the report."""
    result = name.replace("_", " ").replace("kl", "KL")
    return reported(f"results/{{study}}comparison/{file}", name, "Comparison", result=result)


def surveyed(file):
    """A table or figure of a study's variants, shown in the report."""
    result = file.partition(".")[0]
    return report(
        f"results/studies/{{name}}/{file}",
        caption="../report/study.rst",
        category="Comparison",
        labels={"study": "{name}", "result": result},
    )


def files_to_compare(study):
    """What the stages make of every run, all but the models."""
    stages = (rules.evaluate.output, rules.sample.output, rules.reconstruct.output)
    patterns = [rules.train.output.history, *(file for stage in stages for file in stage)]
    return every_run(study, *patterns)


def all_files_of_the_runs(wildcards):
    """What compare reads."""
    return files_to_compare(wildcards.study)


def all_files_of_the_variants(wildcards):
    """What survey reads: what compare does, of each variant."""
    return [
        file
        for variant in STUDIES[wildcards.name]
        for file in files_to_compare(f"studies/{wildcards.name}/{variant}/")
    ]


def variants(wildcards):
    """The names of a study's variants, in their order."""
    return " ".join(STUDIES[wildcards.name])


def runs_of_the_variants(wildcards):
    """The section `runs` as flags; it is the same for all variants."""
    first = next(iter(STUDIES[wildcards.name].values()))
    return params.flags(first["runs"])


def shown_in(document):
    """The files that a document shows; it is read when they are asked for."""

    def files(_):
        names = documents.shown(Path(document).read_text(encoding="utf-8"))
        return [os.path.normpath(Path(document).parent / name) for name in names]

    return files


def found_on_the_runs(wildcards):
    """What the stages of src/research.py make of every run."""
    stages = (rules.iwae, rules.ais, rules.gradient_variance, rules.latents, rules.sample_quality)
    return every_run(wildcards.study, *(file for stage in stages for file in stage.output))


def all_results_of_params_yaml(_):
    """All results, unless they belong to other parameters than the ones that DVC will read."""
    if config != yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")):
        raise WorkflowError(
            "register: --config or --configfile changed what stands in params.yaml, and DVC would "
            "record these results as those of params.yaml; write the values into it first"
        )
    return rules.all.input
