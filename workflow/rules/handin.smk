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
