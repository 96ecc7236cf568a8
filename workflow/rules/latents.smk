# What the latents of a model hold, and pictures of its latent space. Not part of `all`; ask for
# them by name: snakemake --cores 4 results/latents/k3-seed0.json


rule latents:
    input:
        train="data/split/train.safetensors",
        test="data/split/test.safetensors",
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        code=code("latents"),
    output:
        metrics="results/{study}latents/k{k}-seed{seed}.json",
        latents="results/{study}latents/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}latents/k{k}-seed{seed}.log",
    params:
        flags=flags("latents"),
    shell:
        "python src/latents.py --train {input.train} --test {input.test} --model {input.model} "
        "--metrics {output.metrics} --latents {output.latents} {params.flags} --log {log}"


rule traverse:
    input:
        test="data/split/test.safetensors",
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        code=code("traverse"),
    output:
        manifold="results/{study}traversals/k{k}-seed{seed}-manifold.png",
        traversals="results/{study}traversals/k{k}-seed{seed}-traversals.png",
        interpolations="results/{study}traversals/k{k}-seed{seed}-interpolations.png",
        images="results/{study}traversals/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}traverse/k{k}-seed{seed}.log",
    params:
        flags=flags("traverse"),
    shell:
        "python src/traverse.py --test {input.test} --model {input.model} "
        "--manifold {output.manifold} --traversals {output.traversals} "
        "--interpolations {output.interpolations} --images {output.images} {params.flags} "
        "--log {log}"
