# What can be asked for by name: `snakemake --cores all prepare_all`, and so on.


rule prepare_all:
    input:
        [receipts(brain, "prepare") for brain in SHEET],
        expand("<results>/{brain}/doctor/findings.tsv", brain=SHEET),


rule align_all:
    input:
        [receipts(brain, "align_sections") for brain in SHEET],


rule train_all:
    input:
        [weights_of(brain) for brain in SHEET],


rule infer_all:
    input:
        [receipts(brain, method) for brain in SHEET for method in METHODS],


rule reassemble_all:
    input:
        [volume(brain, method) for brain in SHEET for method in METHODS],


rule evaluate_all:
    input:
        expand("<results>/{brain}/evaluation/summary.tsv", brain=SHEET),


rule compare:
    input:
        expand("<results>/{brain}/compare/index.html", brain=SHEET),
