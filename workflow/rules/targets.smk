# What can be asked for by name: `snakemake --cores all prepare_all`, and so on.


rule prepare_all:
    input:
        [receipts(brain, "prepare") for brain in BRAINS],


rule align_all:
    input:
        [receipts(brain, "align_sections") for brain in BRAINS],


rule train_all:
    input:
        [weights_of(brain) for brain in BRAINS],


rule infer_all:
    input:
        [receipts(brain, method) for brain in BRAINS for method in METHODS],


rule reassemble_all:
    input:
        [volume(brain, method) for brain in BRAINS for method in METHODS],


rule evaluate_all:
    input:
        expand("<results>/{brain}/evaluation/summary.tsv", brain=BRAINS),


rule compare:
    input:
        expand("<results>/{brain}/compare/index.html", brain=BRAINS),
