# What is handed in: the answers with the present numbers, and a card of each model.

from document import shown


localrules:
    card,
    document,


def shown_in_the_answers(_):
    """The files that docs/answers.md shows."""
    text = Path("docs/answers.md").read_text(encoding="utf-8")
    return [os.path.normpath(Path("docs", name)) for name in shown(text)]


rule document:
    input:
        document="docs/answers.md",
        results=shown_in_the_answers,
        code=code("document"),
    output:
        markdown="results/handin/answers.md",
        html="results/handin/answers.html",
    log:
        "logs/document.log",
    shell:
        "python src/document.py --document {input.document} --markdown {output.markdown} "
        "--html {output.html} --log {log}"


rule card:
    input:
        model="results/{study}models/k{k}-seed{seed}.safetensors",
        metrics="results/{study}metrics/k{k}-seed{seed}.json",
        code=code("card"),
    output:
        "results/{study}cards/k{k}-seed{seed}.md",
    log:
        "logs/{study}card/k{k}-seed{seed}.log",
    shell:
        "python src/card.py --model {input.model} --metrics {input.metrics} --card {output} "
        "--log {log}"


rule handin:
    input:
        rules.document.output,
        every_run("", *rules.card.output),
