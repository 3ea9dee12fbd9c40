# resample: the MRI plane of every section position, on the working grid of the stack
#   in   the similarity, the plane grid and the MRI; a prealigned brain brings its planes itself
#   out  {results}/{brain}/resample/chunks/{chunk}.tsv, the receipt of the planes beside it
#   run  sbr resample


rule resample:
    input:
        unpack(plane_inputs),
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
        options=options("resample"),
        rows=plane_rows,
        rows_file=rows_file,
        out_dir=lambda wildcards, output: parent(output.receipt, 2),
        working_pixel_mm=CONFIG.prepare.working_pixel_mm,
        flags=lambda wildcards, input: flags(
            **(
                {"working_pixel_mm": CONFIG.prepare.working_pixel_mm}
                if BRAINS[wildcards.brain].prealigned
                else {
                    "align_dir": parent(input.similarity),
                    "mri": input.mri,
                    "mri_mask": input.mri_mask,
                }
            ),
            strict=CONFIG.strict,
        ),
    shell:
        "printf '%s\\n' {params.rows:q} > {params.rows_file:q};"
        " sbr resample --options {params.options:q} --rows {params.rows_file:q} {params.flags:q}"
        " --out-dir {params.out_dir:q} --receipt {output.receipt:q} > {log:q} 2>&1"
