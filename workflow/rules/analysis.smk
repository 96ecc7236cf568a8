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
        runs=every_run(
            rules.train.output.history,
            *rules.evaluate.output,
            *rules.sample.output,
            *rules.reconstruct.output,
        ),
        code=code("compare", "comparison", "figures", "files", "tables"),
    output:
        expand("results/comparison/table.{kind}", kind=["csv", "md", "tex"]),
        expand("results/comparison/{name}.png", name=FIGURES),
    log:
        "logs/compare.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        flags=flags("runs"),
    shell:
        "python src/compare.py --metrics results/metrics --history results/history "
        "--evaluation results/evaluation --samples results/samples "
        "--reconstructions results/reconstructions --output results/comparison "
        "{params.flags} --log {log}"


# DVC takes up the finished run: status clean, nothing left for `dvc repro`, metrics to compare.
# --no-relink leaves the files' times alone, which Snakemake goes by.
rule register:
    input:
        all_results_of_params_yaml,
    log:
        "logs/register.log",
    conda:
        "../envs/pipeline.yaml"
    shell:
        "dvc commit --force --no-relink --quiet > {log} 2>&1"
