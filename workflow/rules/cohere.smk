# cohere: what makes the deformations of neighbouring sections agree, for the method `coherent`
#   in   tables of the method that is followed, of prepare and of resample
#   out  {results}/{brain}/{method}/along/changes.tsv, and the corrections it lists
#   run  sbr cohere


rule cohere:
    input:
        unpack(lambda wildcards: inputs.cohere(STUDY, wildcards.brain)),
        plan="<results>/{brain}/plan/coherent.json",
    output:
        table="<results>/{brain}/{method}/along/changes.tsv",
    log:
        "<results>/{brain}/logs/cohere/{method}.log",
    benchmark:
        "<results>/{brain}/benchmarks/cohere/{method}.tsv"
    conda:
        ENVIRONMENT_OF_NETWORKS
    threads: 1
    resources:
        **card_resources(CONFIG, lambda wildcards: cards(CONFIG, "coherent")),
        mem_mb=16000,
        runtime=120,
    params:
        options=CONFIG.section_json("coherent"),
        out_dir=lambda wildcards, output: folder_of(output.table),
    shell:
        "sbr cohere --options {params.options:q} --sections {input.sections:q}"
        " --prepared {input.prepared:q} --planes {input.planes:q} --out-dir {params.out_dir:q}"
        " --table {output.table:q} > {log:q} 2>&1"
