# The workflow for Snakemake: snakemake
# dvc.yaml declares the same jobs for DVC; a test compares the two.
#
# download → split → train → evaluate, sample, reconstruct → compare
#                    (one of each for every latent dimension and seed in params.yaml)


report: "workflow/report/workflow.rst"


include: "workflow/rules/messages.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/controller.smk"
include: "workflow/rules/main.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/research.smk"
include: "workflow/rules/playground.smk"


rule all:
    default_target: True
    input:
        rules.download.output,
        rules.split.output,
        every_run(
            "",
            *rules.train.output,
            *rules.evaluate.output,
            *rules.sample.output,
            *rules.reconstruct.output,
            *rules.compare.output,
        ),


# A target for each study, for example `snakemake --cores 4 seeds`.
for name in STUDIES:
    if workflow.is_rule(name):
        raise WorkflowError(f"studies/{name}.yaml: {name} is a rule already; rename the file")

    rule:
        name:
            name
        input:
            expand([str(file) for file in rules.compare_study.output], name=name),
            expand(
                rules.curves.output,
                study=[
                    f"studies/{name}/{variant}/"
                    for variant, own in STUDIES[name].items()
                    if own["train"]["snapshots"]
                ],
            ),
