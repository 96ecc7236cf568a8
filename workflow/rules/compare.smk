# Comparing runs of an experiment, or the variants of a study, and registering results in DVC.
# `snakemake likelihoods` runs the study in studies/likelihoods.yaml.

STUDY_FIGURES = ["learning_curves", "samples", "reconstructions"]
FIGURES = [*STUDY_FIGURES, "terms", "kl_per_dimension", "latent_space"]


def files_to_compare(study):
    """What compare reads of an experiment or of one variant of a study."""
    return every_run(
        study,
        rules.train.output.history,
        rules.evaluate.output.metrics,
        rules.evaluate.output.evaluation,
        *rules.sample.output,
        *rules.reconstruct.output,
    )


def comparison(folder, figures):
    """The files that compare writes into a folder, table.csv first."""
    files = ["table.csv", "differences.csv", "discussion.md"]
    for file in [*files, *(f"{name}.png" for name in figures)]:
        name = Path(file).stem
        result = name.replace("_", " ").replace("kl", "KL")
        yield reported(f"{folder}/{file}", name, "Comparison", result=result)
    yield from (f"{folder}/table.md", f"{folder}/differences.md")


def flags_of_the_study(wildcards):
    """The variants of a study and its runs, which are the same for all variants."""
    variants = STUDIES[wildcards.name]
    runs = checking.flags(next(iter(variants.values()))["runs"])
    return f"--variants {' '.join(variants)} {runs}"


def all_results_of_params_yaml(_):
    """All results, unless they belong to parameters that differ from those that DVC reads."""
    if config != yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")):
        raise WorkflowError(
            "register: DVC would record the results as those of params.yaml, but --config or "
            "--configfile changed parameters; write their values into params.yaml first"
        )
    return rules.all.input


rule compare:
    input:
        runs=lambda wildcards: files_to_compare(wildcards.study),
        code=code("compare"),
    output:
        *comparison("results/{study}comparison", FIGURES),
        "results/{study}comparison/settings.md",
        "results/{study}comparison/record.json",
    log:
        "logs/{study}compare.log",
    localrule: True
    params:
        flags=flags("runs"),
    shell:
        "python src/compare.py --results results/{wildcards.study} "
        "--output results/{wildcards.study}comparison {params.flags} --log {log}"


rule compare_study:
    input:
        runs=lambda wildcards: [
            file
            for variant in STUDIES[wildcards.name]
            for file in files_to_compare(f"studies/{wildcards.name}/{variant}/")
        ],
        code=code("compare"),
    output:
        *comparison("results/studies/{name}", STUDY_FIGURES),
    log:
        "logs/studies/{name}/compare.log",
    localrule: True
    params:
        flags=flags_of_the_study,
    shell:
        "python src/compare.py --results results/studies/{wildcards.name} "
        "--output results/studies/{wildcards.name} {params.flags} --log {log}"


# DVC takes over the finished results: status clean, nothing left for `dvc repro`, metrics to compare.
# It would record any file in their place, so custody.py checks first that they belong together.
# --no-relink leaves the files' times unchanged, on which Snakemake relies.
rule register:
    input:
        all_results_of_params_yaml,
    log:
        "logs/register.log",
    localrule: True
    shell:
        "python src/repair.py && python src/custody.py --log {log} && "
        "dvc commit --force --no-relink 2>&1 | tee -a {log}"
