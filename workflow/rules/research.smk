# Stages on request, not part of `all`: `snakemake research` runs them on all models, and
# `snakemake results/inference_gap/k20-seed0.json` runs one of them. Each rule is a stage of
# src/research.py; compare_research gathers their results.


localrules:
    compare_research,


def as_flags(wildcards, input, output):
    """The inputs and outputs of a stage as flags, without its code."""
    files = [*input.items(), *output.items()]
    return " ".join(f"--{name} {file}" for name, file in files if name != "code")


MODEL = "results/{study}models/k{k}-seed{seed}.safetensors"
TRAIN, TEST = "data/split/train.safetensors", "data/split/test.safetensors"


for stage in ("inference_gap", "gradient_variance", "latents"):

    rule:
        name:
            stage
        input:
            **({"train": TRAIN} if stage != "gradient_variance" else {}),
            test=TEST,
            model=MODEL,
            code=research_code(stage),
        output:
            metrics=f"results/{{study}}{stage}/k{{k}}-seed{{seed}}.json",
            arrays=f"results/{{study}}{stage}/k{{k}}-seed{{seed}}.safetensors",
        log:
            f"logs/{{study}}{stage}/k{{k}}-seed{{seed}}.log",
        params:
            files=as_flags,
            flags=flags(stage),
        shell:
            "python src/research.py {rule} {params.files} {params.flags} --log {log}"


rule traverse:
    input:
        test=TEST,
        model=MODEL,
        code=research_code("traverse"),
    output:
        manifold="results/{study}traversals/k{k}-seed{seed}-manifold.png",
        traversals="results/{study}traversals/k{k}-seed{seed}-traversals.png",
        interpolations="results/{study}traversals/k{k}-seed{seed}-interpolations.png",
        arrays="results/{study}traversals/k{k}-seed{seed}.safetensors",
    log:
        "logs/{study}traverse/k{k}-seed{seed}.log",
    params:
        files=as_flags,
        flags=flags("traverse"),
    shell:
        "python src/research.py traverse {params.files} {params.flags} --log {log}"


# One for all runs and studies.
rule classify:
    input:
        train=TRAIN,
        test=TEST,
        code=research_code("classify"),
    output:
        classifier="results/classifier.safetensors",
        accuracy="results/classifier.json",
    log:
        "logs/classify.log",
    params:
        files=as_flags,
        flags=flags("classifier"),
    shell:
        "python src/research.py classify {params.files} {params.flags} --log {log}"


rule sample_quality:
    input:
        train=TRAIN,
        test=TEST,
        model=MODEL,
        latents=f"results/{{study}}latents/k{{k}}-seed{{seed}}.safetensors",
        classifier=rules.classify.output.classifier,
        code=research_code("sample_quality"),
    output:
        metrics="results/{study}sample_quality/k{k}-seed{seed}.json",
        arrays="results/{study}sample_quality/k{k}-seed{seed}.safetensors",
        figure="results/{study}sample_quality/k{k}-seed{seed}-neighbours.png",
    log:
        "logs/{study}sample_quality/k{k}-seed{seed}.log",
    params:
        files=as_flags,
        flags=flags("sample_quality"),
    shell:
        "python src/research.py sample_quality {params.files} {params.flags} --log {log}"


# One for all runs of params.yaml, or of a variant of a study.
rule curves:
    input:
        train=TRAIN,
        test=TEST,
        models=lambda wildcards: every_run(wildcards.study, MODEL),
        code=research_code("curves"),
    output:
        expand("results/{{study}}curves/{name}", name=["table.csv", "table.md", "curves.png"]),
    log:
        "logs/{study}curves.log",
    params:
        threshold=lambda wildcards: values(wildcards.study)["latents"]["threshold"],
        flags=flags("runs"),
    shell:
        "python src/research.py curves --results results/{wildcards.study} "
        "--train {input.train} --test {input.test} --output results/{wildcards.study}curves "
        "--threshold {params.threshold} {params.flags} --log {log}"


rule compare_research:
    input:
        found=found_on_the_runs,
        code=research_code("compare"),
    output:
        expand("results/{{study}}research/{name}", name=["table.csv", "table.md", "summary.md"]),
        expand("results/{{study}}research/{name}.png", name=["bounds", "gradient_variance"]),
    log:
        "logs/{study}compare_research.log",
    params:
        flags=flags("runs"),
    shell:
        "python src/research.py compare --results results/{wildcards.study} "
        "--output results/{wildcards.study}research {params.flags} --log {log}"


rule research:
    input:
        expand(rules.compare_research.output, study=""),
        every_run("", *rules.traverse.output),
