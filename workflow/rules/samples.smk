# What the samples are worth. Made when asked for: snakemake results/fidelity/k20-seed0.json


# One for all runs and studies.
rule classify:
    input:
        train="data/split/train.safetensors",
        test="data/split/test.safetensors",
        code=code("classify"),
    output:
        classifier="results/classifier.safetensors",
        accuracy="results/classifier.json",
    log:
        "logs/classify.log",
    params:
        flags=flags("classifier"),
    shell:
        "python src/classify.py --train {input.train} --test {input.test} "
        "--classifier {output.classifier} --accuracy {output.accuracy} {params.flags} --log {log}"


rule fidelity:
    input:
        train="data/split/train.safetensors",
        test="data/split/test.safetensors",
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        classifier=rules.classify.output.classifier,
        code=code("fidelity"),
    output:
        metrics="results/{study}fidelity/k{k}-seed{seed}.json",
        fidelity="results/{study}fidelity/k{k}-seed{seed}.safetensors",
        figure="results/{study}fidelity/k{k}-seed{seed}-neighbours.png",
    log:
        "logs/{study}fidelity/k{k}-seed{seed}.log",
    params:
        flags=flags("sample_quality"),
    shell:
        "python src/fidelity.py --train {input.train} --test {input.test} --model {input.model} "
        "--classifier {input.classifier} --metrics {output.metrics} "
        "--fidelity {output.fidelity} --figure {output.figure} {params.flags} --log {log}"
