# What a paper would say of the models, beyond the default: `snakemake --cores 4 research`.


localrules:
    summarise,


rule summarise:
    input:
        found=found_on_the_runs,
        code=code("summarise"),
    output:
        expand("results/{{study}}research/table.{kind}", kind=["csv", "md"]),
        "results/{study}research/observations.md",
        expand("results/{{study}}research/{name}.png", name=["bounds", "estimators"]),
    log:
        "logs/{study}summarise.log",
    params:
        flags=flags("runs"),
    shell:
        "python src/summarise.py --ladder results/{wildcards.study}ladder "
        "--ais results/{wildcards.study}ais "
        "--estimators results/{wildcards.study}estimators "
        "--latents results/{wildcards.study}latents "
        "--fidelity results/{wildcards.study}fidelity "
        "--output results/{wildcards.study}research {params.flags} --log {log}"


rule research:
    input:
        expand(rules.summarise.output, study=""),
        every_run("", *rules.traverse.output),
