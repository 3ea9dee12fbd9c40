# simulate: what all methods recover of a known deformation, on pairs made of each brain's own planes
#   in   manifest of the brain, tables of prepare, resample and align_sections, the global fit,
#        labels of the MRI where there are some
#   out  {results}/{brain}-simulated/data/: a prealigned brain with its landmarks and truth,
#        which then goes through every stage to its own report
#   run  sbr simulate
#
# Nothing of it is made unless it is asked for: `snakemake --cores all simulate`. The tables are
# ancient, as a training's are: a section whose image changes does not make the pairs anew, one that
# is added or left out does. {brain} is the brain itself, not the simulated one.


rule simulate:
    input:
        STUDY.refusals,
        expand("<results>/{brain}/report/index.html", brain=STUDY.simulated),
        lambda wildcards: [path for brain in STUDY.simulated for path in STUDY.results(brain)],


rule simulate_pairs:
    input:
        unpack(
            lambda wildcards: marked(
                inputs.simulate_pairs(STUDY, wildcards.brain, forced=is_forced("simulate_pairs"))
            )
        ),
        plan="<results>/{brain}-simulated/plan/simulate.json",
    output:
        manifest="<results>/{brain}-simulated/data/sections.tsv",
        landmarks="<results>/{brain}-simulated/data/landmarks.tsv",
        truth="<results>/{brain}-simulated/data/truth.json",
    log:
        "<results>/{brain}-simulated/logs/simulate.log",
    benchmark:
        "<results>/{brain}-simulated/benchmarks/simulate.tsv"
    conda:
        "../../envs/sbr.yaml"
    threads: 4
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        options=CONFIG.section_json("simulate"),
        rows=lambda wildcards: STUDY.brains[wildcards.brain].row.sections,
        out_dir=lambda wildcards, output: folder_of(output.manifest),
        flags=lambda wildcards, input: flags(
            align_dir=folder_of(input.similarity) if "mri_labels" in input.keys() else None,
            mri_labels=input.get("mri_labels"),
            strict=CONFIG.strict and "plane_labels" in input.keys(),
        ),
    shell:
        "sbr simulate --options {params.options:q} --rows {params.rows:q}"
        " --prepared {input.prepared:q} --planes {input.planes:q} --sections {input.sections:q}"
        " {params.flags:q} --out-dir {params.out_dir:q} > {log:q} 2>&1"
