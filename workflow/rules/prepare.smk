# prepare: section images to working-resolution intensity and tissue mask, chunk by chunk
#   in   images, masks and labels of the chunk's rows (the manifest itself is no input); before
#        the first results of a brain, that it passed `check`
#   out  {results}/{brain}/prepare/chunks/{chunk}.tsv, the receipt of the section files beside it
#   run  sbr prepare
# prepare_mri: the MRI and its mask, checked
#   out  {results}/{brain}/prepare/mri.nii.gz, mri_mask.nii.gz
#   run  sbr prepare-mri


rule prepare:
    input:
        images=lambda wildcards: inputs.prepare(STUDY, wildcards.brain, wildcards.chunk),
        passed=lambda wildcards: marked(inputs.passed(STUDY, wildcards.brain)),
    output:
        receipt="<results>/{brain}/prepare/chunks/{chunk}.tsv",
    log:
        "<results>/{brain}/logs/prepare/{chunk}.log",
    benchmark:
        "<results>/{brain}/benchmarks/prepare/{chunk}.tsv"
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        options=CONFIG.section_json("prepare"),
        revision=REVISION["prepare"],
        rows=lambda wildcards: chunk_json(STUDY, wildcards.brain, wildcards.chunk),
        rows_file=lambda wildcards, output: rows_file(output.receipt),
        out_dir=lambda wildcards, output: folder_of(output.receipt, 2),
        flags=lambda wildcards, input: flags(strict=CONFIG.strict),
    shell:
        "rm -f {params.rows_file:q}; printf '%s\\n' {params.rows:q} > {params.rows_file:q};"
        " sbr prepare --options {params.options:q} --rows {params.rows_file:q}"
        " --out-dir {params.out_dir:q} --receipt {output.receipt:q} {params.flags:q}"
        " > {log:q} 2>&1"


rule prepare_mri:
    input:
        unpack(lambda wildcards: inputs.prepare_mri(STUDY, wildcards.brain)),
    output:
        mri="<results>/{brain}/prepare/mri.nii.gz",
        mri_mask="<results>/{brain}/prepare/mri_mask.nii.gz",
        facts="<results>/{brain}/prepare/mri.json",
    log:
        "<results>/{brain}/logs/prepare_mri.log",
    benchmark:
        "<results>/{brain}/benchmarks/prepare_mri.tsv"
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        options=CONFIG.section_json("prepare"),
        revision=REVISION["prepare_mri"],
        out_dir=lambda wildcards, output: folder_of(output.mri),
        flags=lambda wildcards, input: flags(mri_mask=input.get("mri_mask")),
    shell:
        "sbr prepare-mri --options {params.options:q} --mri {input.mri:q} {params.flags:q}"
        " --out-dir {params.out_dir:q} > {log:q} 2>&1"
