# What can be asked for by name: `snakemake --cores all prepare_all`, and so on.


rule prepare_all:
    input:
        REFUSALS,
        [receipts(brain, "prepare") for brain in SHEET],
        expand("<results>/{brain}/doctor/findings.tsv", brain=SHEET),


rule align_all:
    input:
        REFUSALS,
        [receipts(brain, "align_sections") for brain in SHEET],


rule train_all:
    input:
        REFUSALS,
        [weights_of(brain) for brain in SHEET],


rule infer_all:
    input:
        REFUSALS,
        [receipts(brain, method) for brain in SHEET for method in METHODS],


rule reassemble_all:
    input:
        REFUSALS,
        [volume(brain, method) for brain in SHEET for method in METHODS],


rule evaluate_all:
    input:
        REFUSALS,
        expand("<results>/{brain}/evaluation/summary.tsv", brain=SHEET),


rule compare:
    input:
        REFUSALS,
        expand("<results>/{brain}/compare/index.html", brain=SHEET),
