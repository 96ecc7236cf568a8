# Comparing runs of an experiment, or the variants of a study, and registering results in DVC.
# `snakemake --cores 4 likelihoods` runs the study in studies/likelihoods.yaml.

FIGURES = [
    *("learning_curves", "samples", "reconstructions"),
    *("terms", "kl_per_dimension", "latent_space"),
]


localrules:
    compare,
    compare_study,
    register,


rule compare:
    input:
        runs=files_to_compare,
        code=code("compare"),
    output:
        compared("results/{study}comparison/table.csv"),
        expand("results/{{study}}comparison/table.{kind}", kind=["md", "tex"]),
        compared("results/{study}comparison/differences.csv"),
        "results/{study}comparison/differences.md",
        compared("results/{study}comparison/discussion.md"),
        [compared(f"results/{{study}}comparison/{name}.png") for name in FIGURES],
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
        compared("results/studies/{name}/table.csv", study="{name}"),
        "results/studies/{name}/table.md",
        compared("results/studies/{name}/differences.csv", study="{name}"),
        "results/studies/{name}/differences.md",
        compared("results/studies/{name}/discussion.md", study="{name}"),
        [compared(f"results/studies/{{name}}/{name}.png", study="{name}") for name in FIGURES[:3]],
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
