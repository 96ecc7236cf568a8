# What is handed in: the answers with the present numbers.

from document import shown


def shown_in_the_answers(_):
    """The files that docs/answers.md shows."""
    text = Path("docs/answers.md").read_text(encoding="utf-8")
    return [os.path.normpath(Path("docs", name)) for name in shown(text)]


rule document:
    input:
        document="docs/answers.md",
        results=shown_in_the_answers,
        code=[*code("document"), "src/document.html", "src/document.typst"],
    output:
        markdown="results/handin/answers.md",
        html="results/handin/answers.html",
        pdf="results/handin/answers.pdf",
    log:
        "logs/document.log",
    localrule: True
    shell:
        "python src/document.py --document {input.document} --markdown {output.markdown} "
        "--html {output.html} --pdf {output.pdf} --log {log}"


rule handin:
    input:
        rules.document.output,


# An interactive page with the models of the first seed. Its weights are the largest part: 1.4 MB per model.
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
