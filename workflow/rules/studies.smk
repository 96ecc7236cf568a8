# Studies: the same rules under other parameters. `snakemake --cores 4 likelihoods` runs the one that
# studies/likelihoods.yaml declares.


localrules:
    survey,


rule survey:
    input:
        runs=all_files_of_the_variants,
        code=code("survey"),
    output:
        surveyed("table.csv"),
        "results/studies/{name}/table.md",
        "results/studies/{name}/differences.csv",
        surveyed("differences.md"),
        surveyed("observations.md"),
        [surveyed(f"{figure}.png") for figure in ("curves", "samples", "reconstructions")],
    log:
        "logs/studies/{name}/survey.log",
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
            expand([str(file) for file in rules.survey.output], name=name),
