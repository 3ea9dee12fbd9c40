# resample: the MRI plane of every section position, on the working grid of the stack
#   in   the similarity, the plane grid and the MRI; a prealigned brain brings its planes itself
#   out  {results}/{brain}/resample/chunks/{chunk}.tsv, the receipt of the planes beside it
#   run  sbr resample


rule resample:
    input:
        unpack(lambda wildcards: inputs.resample(STUDY, wildcards.brain, wildcards.chunk)),
        plan="<results>/{brain}/plan/resample.{chunk}.json",
    output:
        receipt="<results>/{brain}/resample/chunks/{chunk}.tsv",
    log:
        "<results>/{brain}/logs/resample/{chunk}.log",
    benchmark:
        "<results>/{brain}/benchmarks/resample/{chunk}.tsv"
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        options=CONFIG.section_json("resample"),
        rows=lambda wildcards: plane_json(STUDY, wildcards.brain, wildcards.chunk),
        rows_file=lambda wildcards, output: rows_file(output.receipt),
        out_dir=lambda wildcards, output: folder_of(output.receipt, 2),
        working_pixel_mm=CONFIG.prepare.working_pixel_mm,
        flags=lambda wildcards, input: flags(
            **(
                {"working_pixel_mm": CONFIG.prepare.working_pixel_mm}
                if STUDY.brains[wildcards.brain].prealigned
                else {
                    "align_dir": folder_of(input.similarity),
                    "mri": input.mri,
                    "mri_mask": input.mri_mask,
                }
            ),
            strict=CONFIG.strict,
        ),
    shell:
        "rm -f {params.rows_file:q}; printf '%s\\n' {params.rows:q} > {params.rows_file:q};"
        " sbr resample --options {params.options:q} --rows {params.rows_file:q} {params.flags:q}"
        " --out-dir {params.out_dir:q} --receipt {output.receipt:q} > {log:q} 2>&1"
