# Download the original files and split them into the training, validation and test sets.

RAW = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


localrules:
    download,
    split,


rule download:
    input:
        bundled=expand("data/mnist/{name}.gz", name=RAW),
        code=code("download"),
    output:
        expand("data/raw/{name}", name=[*RAW, "dataset.json"]),
    log:
        "logs/download.log",
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
    params:
        flags=flags("split"),
    shell:
        "python src/split.py --raw data/raw --train {output.train} "
        "--validation {output.validation} --test {output.test} {params.flags} --log {log}"
