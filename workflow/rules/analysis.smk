# The runs side by side, and their registration in DVC.

FIGURES = [
    *("learning_curves", "terms", "kl_per_dimension", "samples", "reconstructions"),
    "latent_space",
]


localrules:
    compare,
    register,


rule compare:
    input:
        runs=all_files_of_the_runs,
        code=code("compare"),
    output:
        compared("table.csv", "table"),
        expand("results/{{study}}comparison/table.{kind}", kind=["md", "tex"]),
        compared("differences.csv", "differences"),
        "results/{study}comparison/differences.md",
        compared("observations.md", "observations"),
        [compared(f"{name}.png", name) for name in FIGURES],
    log:
        "logs/{study}compare.log",
    params:
        flags=flags("runs"),
    shell:
        "python src/compare.py --metrics results/{wildcards.study}metrics "
        "--history results/{wildcards.study}history "
        "--evaluation results/{wildcards.study}evaluation "
        "--samples results/{wildcards.study}samples "
        "--reconstructions results/{wildcards.study}reconstructions "
        "--output results/{wildcards.study}comparison {params.flags} --log {log}"


# DVC takes up the finished run: status clean, nothing left for `dvc repro`, metrics to compare.
# --no-relink leaves the files' times alone, which Snakemake goes by.
rule register:
    input:
        all_results_of_params_yaml,
    log:
        "logs/register.log",
    shell:
        "dvc commit --force --no-relink --quiet > {log} 2>&1"
