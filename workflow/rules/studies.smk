# Studies: the same rules under other parameters. `snakemake --cores 4 likelihoods` runs the one that
# studies/likelihoods.yaml declares.


localrules:
    survey,


rule survey:
    input:
        runs=all_files_of_the_variants,
        code=code(
            *("survey", "comparison", "figures", "files", "intervals", "observations", "survey"),
            "tables",
        ),
    output:
        expand(
            "results/studies/{{name}}/{table}.{kind}",
            table=["table", "differences"],
            kind=["csv", "md"],
        ),
        "results/studies/{name}/observations.md",
        expand(
            "results/studies/{{name}}/{figure}.png",
            figure=["curves", "samples", "reconstructions"],
        ),
    log:
        "logs/studies/{name}/survey.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        flags=runs_of_the_variants,
        variants=variants,
    shell:
        "python src/survey.py --study results/studies/{wildcards.name} "
        "--output results/studies/{wildcards.name} --variants {params.variants} "
        "{params.flags} --log {log}"


for name in STUDIES:

    rule:
        name:
            name
        input:
            expand(rules.survey.output, name=name),
