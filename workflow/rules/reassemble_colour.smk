# reassemble_colour: the volume of the sections in their own colours, where reassemble.colour asks
# for it
#   in   tables of infer and prepare, the similarity and the MRI's grid
#   out  {results}/{brain}/{method}/volume/{brain}_space-{mri,stack}_colour.nii.gz, or .ome.zarr, or
#        .ome.tif, and .json beside it
#   run  sbr reassemble-colour


rule reassemble_colour:
    input:
        unpack(lambda wildcards: inputs.reassemble(STUDY, wildcards.brain, wildcards.stain)),
        plan="<results>/{brain}/plan/reassemble_colour.json",
        sections="<results>/{brain}/{method}/sections.tsv",
        prepared="<results>/{brain}/prepare/sections.tsv",
    output:
        volume="<results>/{brain}/{method}/volume/{brain}_space-{space}{stain}_colour"
        + COLOUR_ENDINGS[CONFIG.reassemble.format],
        facts="<results>/{brain}/{method}/volume/{brain}_space-{space}{stain}_colour.json",
    log:
        "<results>/{brain}/logs/reassemble_colour/{method}_space-{space}{stain}.log",
    benchmark:
        "<results>/{brain}/benchmarks/reassemble_colour/{method}_space-{space}{stain}.tsv"
    conda:
        "../../envs/sbr.yaml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        method=lambda wildcards: method_of(wildcards.method),
        options=CONFIG.section_json("reassemble_colour"),
        out_dir=lambda wildcards, output: folder_of(output.facts),
        flags=lambda wildcards, input: flags(
            align_dir=folder_of(input.similarity) if "similarity" in input.keys() else None,
            mri=input.get("mri"),
            stain_group=wildcards.stain.removeprefix("_stain-") or None,
            rejected=STUDY.brains[wildcards.brain].rejected(
                wildcards.stain.removeprefix("_stain-")
            ),
        ),
    shell:
        "sbr reassemble-colour --options {params.options:q} --brain {wildcards.brain:q}"
        " --method {params.method:q} --sections {input.sections:q}"
        " --prepared {input.prepared:q} {params.flags:q} --out-dir {params.out_dir:q}"
        " > {log:q} 2>&1"
