# An interactive page with the models of the first seed: `snakemake playground`, about 1.4 MB per model.
rule playground:
    input:
        expand(
            [rules.train.output.model, rules.evaluate.output.evaluation],
            study="",
            k=config["runs"]["latent_dims"],
            seed=config["runs"]["seeds"][0],
        ),
        test=rules.split.output.test,
        template="src/aevb/report/playground.html",
        code=code("playground"),
    output:
        "results/playground.html",
    log:
        "logs/playground.log",
    localrule: True
    params:
        flags=flags("runs"),
    shell:
        "python src/playground.py --results results --test {input.test} "
        "--template {input.template} --output {output} {params.flags} --log {log}"
