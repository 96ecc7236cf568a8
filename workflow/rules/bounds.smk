# How tight the bound is: not made by default. For k = 20 and seed 0:
# snakemake --cores 2 results/ladder/k20-seed0.json results/ais/k20-seed0.json


rule ladder:
    input:
        test="data/split/test.safetensors",
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        code=code("ladder"),
    output:
        metrics="results/{study}ladder/k{k}-seed{seed}.json",
        bounds="results/{study}ladder/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}ladder/k{k}-seed{seed}.log",
    params:
        flags=flags("iwae"),
    shell:
        "python src/ladder.py --test {input.test} --model {input.model} "
        "--metrics {output.metrics} --bounds {output.bounds} {params.flags} --log {log}"


rule ais:
    input:
        test="data/split/test.safetensors",
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        code=code("ais"),
    output:
        metrics="results/{study}ais/k{k}-seed{seed}.json",
        estimates="results/{study}ais/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}ais/k{k}-seed{seed}.log",
    params:
        flags=flags("ais"),
    shell:
        "python src/ais.py --test {input.test} --model {input.model} "
        "--metrics {output.metrics} --estimates {output.estimates} {params.flags} --log {log}"
