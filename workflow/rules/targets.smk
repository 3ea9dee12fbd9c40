# What can be asked for by name: `snakemake --cores all prepare_all`, and so on.


rule prepare_all:
    input:
        STUDY.refusals,
        [STUDY.receipts(brain, "prepare") for brain in STUDY.of_sheet],
        expand("<results>/{brain}/doctor/findings.tsv", brain=STUDY.of_sheet),


rule align_all:
    input:
        STUDY.refusals,
        CORRECTED,
        [STUDY.receipts(brain, "align_sections") for brain in STUDY.of_sheet],


rule train_all:
    input:
        STUDY.refusals,
        [
            [STUDY.weights(brain, folder) for folder in STUDY.trainings(brain)]
            for brain in STUDY.of_sheet
        ],


rule infer_all:
    input:
        STUDY.refusals,
        CORRECTED,
        [STUDY.receipts(brain, method) for brain in STUDY.of_sheet for method in STUDY.methods],


rule reassemble_all:
    input:
        STUDY.refusals,
        CORRECTED,
        [STUDY.volumes(brain, method) for brain in STUDY.of_sheet for method in STUDY.methods],


rule evaluate_all:
    input:
        STUDY.refusals,
        CORRECTED,
        expand("<results>/{brain}/evaluation/summary.tsv", brain=STUDY.of_sheet),


rule compare:
    input:
        STUDY.refusals,
        CORRECTED,
        expand("<results>/{brain}/compare/index.html", brain=STUDY.of_sheet),
