# The graph for Snakemake: snakemake --cores 4
# The same graph for DVC stands in dvc.yaml; a test holds the two together.
#
# download → split → train → evaluate, sample, reconstruct → compare
#                    (one of each for every latent dimension and seed in params.yaml)


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/failures.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/model.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/research.smk"
include: "workflow/rules/studies.smk"
include: "workflow/rules/handin.smk"


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
