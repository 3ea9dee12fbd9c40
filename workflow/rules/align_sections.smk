# align_sections: one 2D affine per section, which is the `linear` result
#   in   receipts of prepare and resample of the same chunk, the global fit as start and prior
#   out  {results}/{brain}/align_sections/chunks/{chunk}.tsv
#   run  sbr align-sections


rule align_sections:
    input:
        unpack(lambda wildcards: inputs.align_sections(STUDY, wildcards.brain, wildcards.chunk)),
        plan="<results>/{brain}/plan/align_sections.json",
        prepared="<results>/{brain}/prepare/chunks/{chunk}.tsv",
        planes="<results>/{brain}/resample/chunks/{chunk}.tsv",
    output:
        receipt="<results>/{brain}/align_sections/chunks/{chunk}.tsv",
    log:
        "<results>/{brain}/logs/align_sections/{chunk}.log",
    benchmark:
        "<results>/{brain}/benchmarks/align_sections/{chunk}.tsv"
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        options=CONFIG.section_json("align_sections"),
        out_dir=lambda wildcards, output: folder_of(output.receipt, 2),
        flags=lambda wildcards, input: flags(
            **(
                {"prealigned": True}
                if STUDY.brains[wildcards.brain].prealigned
                else {"align_dir": folder_of(input.similarity)}
            ),
            landmarks=inputs.landmarks_of_chunk(STUDY, wildcards.brain, wildcards.chunk),
            strict=CONFIG.strict,
        ),
    shell:
        "sbr align-sections --options {params.options:q} --prepared {input.prepared:q}"
        " --planes {input.planes:q} {params.flags:q} --out-dir {params.out_dir:q}"
        " --receipt {output.receipt:q} > {log:q} 2>&1"
