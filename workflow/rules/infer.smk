# infer: deformations both ways, synthesised and registered sections, method by method
#   in   receipts of one chunk, trained networks (of another brain where weights_from names one)
#   out  {results}/{brain}/{method}/chunks/{chunk}.tsv, the receipt of transforms and sections
#   run  sbr infer


rule infer:
    input:
        unpack(lambda wildcards: marked(inputs.infer(STUDY, wildcards.brain, wildcards.method))),
        plan=lambda wildcards: STUDY.path(
            wildcards.brain, "plan", f"{inference_section(wildcards.method)}.json"
        ),
        prepared="<results>/{brain}/prepare/chunks/{chunk}.tsv",
        planes="<results>/{brain}/resample/chunks/{chunk}.tsv",
        affines="<results>/{brain}/align_sections/chunks/{chunk}.tsv",
    output:
        receipt="<results>/{brain}/{method}/chunks/{chunk}.tsv",
    log:
        "<results>/{brain}/logs/infer/{method}/{chunk}.log",
    benchmark:
        "<results>/{brain}/benchmarks/infer/{method}/{chunk}.tsv"
    conda:
        ENVIRONMENT_OF_NETWORKS
    threads: 1
    resources:
        **card_resources(CONFIG, lambda wildcards: inference_cards(CONFIG, wildcards.method)),
        mem_mb=8000,
        runtime=60,
    params:
        method=lambda wildcards: method_of(wildcards.method),
        options=lambda wildcards: CONFIG.section_json(inference_section(wildcards.method)),
        out_dir=lambda wildcards, output: folder_of(output.receipt, 2),
        flags=lambda wildcards, input: flags(
            registrar=input.get("registrar"),
            weights=input.get("weights"),
            followed=input.get("followed"),
            changes=input.get("changes"),
            strict=CONFIG.strict,
        ),
    shell:
        "sbr infer --method {params.method:q} --options {params.options:q}"
        " --prepared {input.prepared:q} --planes {input.planes:q} --affines {input.affines:q}"
        " {params.flags:q} --out-dir {params.out_dir:q} --receipt {output.receipt:q}"
        " > {log:q} 2>&1"
