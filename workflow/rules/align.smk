# align: the 3D similarity between stack and MRI and first affines of the sections, one global fit
#   in   table of prepare (ancient: an edited section does not move the whole stack), checked MRI
#   out  {results}/{brain}/align/: similarity, plane grid, first affines, quality, overview
#   run  sbr align


rule align:
    input:
        unpack(
            lambda wildcards: marked(
                inputs.align(STUDY, wildcards.brain, forced=is_forced("align"))
            )
        ),
        plan="<results>/{brain}/plan/align.json",
        mri="<results>/{brain}/prepare/mri.nii.gz",
        mri_mask="<results>/{brain}/prepare/mri_mask.nii.gz",
    output:
        similarity="<results>/{brain}/align/from-stack_to-mri_mode-image_xfm.txt",
        plane_grid="<results>/{brain}/align/plane_grid.json",
        initial="<results>/{brain}/align/sections_initial.tsv",
        quality="<results>/{brain}/align/quality.json",
        overview="<results>/{brain}/align/overview.png",
    log:
        "<results>/{brain}/logs/align.log",
    benchmark:
        "<results>/{brain}/benchmarks/align.tsv"
    conda:
        "../../envs/sbr.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        options=CONFIG.section_json("align"),
        orientation=lambda wildcards: STUDY.brains[wildcards.brain].row.orientation,
        working_pixel_mm=CONFIG.prepare.working_pixel_mm,
        out_dir=lambda wildcards, output: folder_of(output.similarity),
    shell:
        "sbr align --options {params.options:q} --sections {input.sections:q}"
        " --mri {input.mri:q} --mri-mask {input.mri_mask:q}"
        " --orientation {params.orientation:q} --working-pixel-mm {params.working_pixel_mm}"
        " --out-dir {params.out_dir:q} 2>&1 | tee {log:q}"
