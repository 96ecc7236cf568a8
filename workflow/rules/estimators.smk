# How noisy the gradient's estimators are: not made by default. For k = 20 and seed 0:
# snakemake --cores 1 results/estimators/k20-seed0.json


rule estimators:
    input:
        test="data/split/test.safetensors",
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        code=code("estimators"),
    output:
        metrics="results/{study}estimators/k{k}-seed{seed}.json",
        gradients="results/{study}estimators/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}estimators/k{k}-seed{seed}.log",
    params:
        flags=flags("gradient_variance"),
    shell:
        "python src/estimators.py --test {input.test} --model {input.model} "
        "--metrics {output.metrics} --gradients {output.gradients} {params.flags} --log {log}"
