# One training for each latent dimension and seed, and what is made of each model.


rule train:
    input:
        train="data/split/train.safetensors",
        validation="data/split/validation.safetensors",
        code=code("train"),
    output:
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        history=of_a_run("results/{study}history/k{k}-seed{seed}.csv", "history", "Training"),
    log:
        "logs/{study}train/k{k}-seed{seed}.log",
    threads: training_threads
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
        test="data/split/test.safetensors",
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        code=code("evaluate"),
    output:
        metrics=of_a_run("results/{study}metrics/k{k}-seed{seed}.json", "metrics", "Evaluation"),
        evaluation="results/{study}evaluation/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}evaluate/k{k}-seed{seed}.log",
    priority: 1  # the longest of the three that follow a training
    group:
        a_run
    params:
        flags=flags("evaluate"),
    shell:
        "python src/evaluate.py --test {input.test} --model {input.model} "
        "--metrics {output.metrics} --evaluation {output.evaluation} {params.flags} --log {log}"


rule sample:
    input:
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        code=code("sample"),
    output:
        means=of_a_run(
            "results/{study}samples/k{k}-seed{seed}-means.png",
            "run_samples",
            "Samples",
            picture="means",
        ),
        draws=of_a_run(
            "results/{study}samples/k{k}-seed{seed}-draws.png",
            "run_samples",
            "Samples",
            picture="draws",
        ),
        samples="results/{study}samples/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}sample/k{k}-seed{seed}.log",
    group:
        a_run
    params:
        flags=flags("sample"),
    shell:
        "python src/sample.py --model {input.model} --means {output.means} "
        "--draws {output.draws} --samples {output.samples} {params.flags} --log {log}"


rule reconstruct:
    input:
        test="data/split/test.safetensors",
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        code=code("reconstruct"),
    output:
        figure=of_a_run(
            "results/{study}reconstructions/k{k}-seed{seed}.png",
            "run_reconstructions",
            "Reconstructions",
        ),
        reconstructions="results/{study}reconstructions/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}reconstruct/k{k}-seed{seed}.log",
    group:
        a_run
    params:
        flags=flags("reconstruct"),
    shell:
        "python src/reconstruct.py --test {input.test} --model {input.model} "
        "--figure {output.figure} --reconstructions {output.reconstructions} {params.flags} "
        "--log {log}"
