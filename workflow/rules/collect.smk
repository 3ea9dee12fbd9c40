# collect: the receipts of one stage (or of one method's inference) as one table of the brain
#   in   {results}/{brain}/{stage or method}/chunks/*.tsv
#   out  {results}/{brain}/{stage or method}/sections.tsv, sorted by position
#   run  sbr collect


localrules:
    collect,


rule collect:
    input:
        plan="<results>/{brain}/plan/collect.json",
        receipts=lambda wildcards: STUDY.receipts(wildcards.brain, wildcards.table),
    output:
        table="<results>/{brain}/{table}/sections.tsv",
    log:
        "<results>/{brain}/logs/collect/{table}.log",
    conda:
        "../../envs/sbr.yaml"
    shell:
        "sbr collect --receipts {input.receipts:q} --table {output.table:q} > {log:q} 2>&1"
