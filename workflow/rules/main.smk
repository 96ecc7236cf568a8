# From the original files to what is made of each model. Each latent dimension and seed is a run.

from aevb.data import RAW_FILES


rule download:
    input:
        bundled=expand("data/mnist/{name}.gz", name=RAW_FILES),
        code=code("download"),
    output:
        expand("data/raw/{name}", name=[*RAW_FILES, "dataset.json"]),
    log:
        "logs/download.log",
    localrule: True
    params:
        flags=flags("data"),
    shell:
        "python src/download.py --bundled data/mnist --output data/raw {params.flags} --log {log}"


rule split:
    input:
        raw=rules.download.output,
        code=code("split"),
    output:
        train="data/split/train.safetensors",
        validation="data/split/validation.safetensors",
        test="data/split/test.safetensors",
    log:
        "logs/split.log",
    localrule: True
    params:
        flags=flags("split"),
    shell:
        "python src/split.py --raw data/raw --train {output.train} "
        "--validation {output.validation} --test {output.test} {params.flags} --log {log}"


rule train:
    input:
        train=rules.split.output.train,
        validation=rules.split.output.validation,
        code=code("train"),
    output:
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        history=reported("results/{study}history/k{k}-seed{seed}.csv", "history", "Training"),
    log:
        "logs/{study}train/k{k}-seed{seed}.log",
    group:
        a_job
    threads: lambda wildcards: values(wildcards.study)["train"]["threads"]
    params:
        flags=flags("model", "train"),
    shell:
        "python src/train.py --train {input.train} --validation {input.validation} "
        "--model {output.model} --history {output.history} "
        "--checkpoints checkpoints/{wildcards.study} "
        "--provenance provenance/{wildcards.study}k{wildcards.k}-seed{wildcards.seed}.json "
        "--latent_dim {wildcards.k} --seed {wildcards.seed} {params.flags} --log {log}"


rule evaluate:
    input:
        test=rules.split.output.test,
        model=rules.train.output.model,
        code=code("evaluate"),
    output:
        metrics=reported("results/{study}metrics/k{k}-seed{seed}.json", "metrics", "Evaluation"),
        evaluation="results/{study}evaluation/k{k}-seed{seed}.safetensors",
        terms="results/{study}terms/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}evaluate/k{k}-seed{seed}.log",
    priority: 1  # it takes longer than sample and reconstruct
    group:
        a_job
    params:
        flags=flags("evaluate"),
    shell:
        "python src/evaluate.py --test {input.test} --model {input.model} "
        "--metrics {output.metrics} --evaluation {output.evaluation} --terms {output.terms} "
        "{params.flags} --log {log}"


SAMPLES = "results/{study}samples/k{k}-seed{seed}"


rule sample:
    input:
        model=rules.train.output.model,
        code=code("sample"),
    output:
        means=reported(f"{SAMPLES}-means.png", "run_samples", "Samples", picture="means"),
        draws=reported(f"{SAMPLES}-draws.png", "run_samples", "Samples", picture="draws"),
        samples=f"{SAMPLES}.safetensors",
    log:
        "logs/{study}sample/k{k}-seed{seed}.log",
    group:
        a_job
    params:
        flags=flags("sample"),
    shell:
        "python src/sample.py --model {input.model} --means {output.means} "
        "--draws {output.draws} --samples {output.samples} {params.flags} --log {log}"


rule reconstruct:
    input:
        test=rules.split.output.test,
        model=rules.train.output.model,
        code=code("reconstruct"),
    output:
        figure=reported(
            "results/{study}reconstructions/k{k}-seed{seed}.png",
            "run_reconstructions",
            "Reconstructions",
        ),
        reconstructions="results/{study}reconstructions/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}reconstruct/k{k}-seed{seed}.log",
    group:
        a_job
    params:
        flags=flags("reconstruct"),
    shell:
        "python src/reconstruct.py --test {input.test} --model {input.model} "
        "--figure {output.figure} --reconstructions {output.reconstructions} {params.flags} "
        "--log {log}"
