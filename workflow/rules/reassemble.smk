# reassemble: the sections as one 3D volume, in MRI space or, where there is no 3D MRI, in the stack
#   in   tables of infer and prepare, the similarity and the MRI's grid
#   out  {results}/{brain}/{method}/volume/{brain}_space-{mri,stack}_histology.nii.gz and
#        _coverage.nii.gz; _labels.nii.gz beside them where sections have labels; _stain-GROUP_
#        after the space, of each stain group of the manifest
#   run  sbr reassemble


rule reassemble:
    input:
        unpack(lambda wildcards: inputs.reassemble(STUDY, wildcards.brain, wildcards.stain)),
        plan="<results>/{brain}/plan/reassemble.json",
        sections="<results>/{brain}/{method}/sections.tsv",
        prepared="<results>/{brain}/prepare/sections.tsv",
    output:
        histology="<results>/{brain}/{method}/volume/{brain}_space-{space}{stain}_histology.nii.gz",
        coverage="<results>/{brain}/{method}/volume/{brain}_space-{space}{stain}_coverage.nii.gz",
    log:
        "<results>/{brain}/logs/reassemble/{method}_space-{space}{stain}.log",
    benchmark:
        "<results>/{brain}/benchmarks/reassemble/{method}_space-{space}{stain}.tsv"
    conda:
        "../../envs/sbr.yaml"
    threads: 4
    resources:
        mem_mb=16000,
        runtime=120,
    params:
        method=lambda wildcards: method_of(wildcards.method),
        options=CONFIG.section_json("reassemble"),
        out_dir=lambda wildcards, output: folder_of(output.histology),
        flags=lambda wildcards, input: flags(
            align_dir=folder_of(input.similarity) if "similarity" in input.keys() else None,
            mri=input.get("mri"),
            stain_group=wildcards.stain.removeprefix("_stain-") or None,
            rejected=STUDY.brains[wildcards.brain].rejected(
                wildcards.stain.removeprefix("_stain-")
            ),
        ),
    shell:
        "sbr reassemble --options {params.options:q} --brain {wildcards.brain:q}"
        " --method {params.method:q} --sections {input.sections:q}"
        " --prepared {input.prepared:q} {params.flags:q} --out-dir {params.out_dir:q}"
        " > {log:q} 2>&1"
