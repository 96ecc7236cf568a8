# Comparing runs of an experiment, or the variants of a study, and registering results in DVC.
# `snakemake --cores 4 likelihoods` runs the study in studies/likelihoods.yaml.

STUDY_FIGURES = ["learning_curves", "samples", "reconstructions"]
FIGURES = [*STUDY_FIGURES, "terms", "kl_per_dimension", "latent_space"]


def comparison(folder, figures, **labels):
    """The files that compare writes into a folder, table.csv first."""
    names = ["table.csv", "differences.csv", "discussion.md"]
    names += [f"{figure}.png" for figure in figures]
    files = [compared(f"{folder}/{name}", **labels) for name in names]
    return [*files, f"{folder}/table.md", f"{folder}/differences.md"]


localrules:
    compare,
    compare_study,
    register,


rule compare:
    input:
        runs=files_to_compare,
        code=code("compare"),
    output:
        comparison("results/{study}comparison", FIGURES),
        "results/{study}comparison/table.tex",
    log:
        "logs/{study}compare.log",
    params:
        flags=flags("runs"),
    shell:
        "python src/compare.py --results results/{wildcards.study} "
        "--output results/{wildcards.study}comparison {params.flags} --log {log}"


rule compare_study:
    input:
        runs=files_to_compare,
        code=code("compare"),
    output:
        comparison("results/studies/{name}", STUDY_FIGURES, study="{name}"),
    log:
        "logs/studies/{name}/compare.log",
    params:
        flags=variants_and_runs,
    shell:
        "python src/compare.py --results results/studies/{wildcards.name} "
        "--output results/studies/{wildcards.name} {params.flags} --log {log}"


for name in STUDIES:

    rule:
        name:
            name
        input:
            expand([str(file) for file in rules.compare_study.output], name=name),


# DVC takes over the finished results: status clean, nothing left for `dvc repro`, metrics to compare.
# --no-relink leaves the files' times unchanged, on which Snakemake relies.
rule register:
    input:
        all_results_of_params_yaml,
    log:
        "logs/register.log",
    shell:
        "dvc commit --force --no-relink --quiet > {log} 2>&1"
