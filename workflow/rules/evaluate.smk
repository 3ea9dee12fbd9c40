# evaluate: tables of accuracy, every method beside `linear`
#   in   tables, volumes and expected errors of every method, landmarks and labels where the user
#        gave them
#   out  {results}/{brain}/evaluation/summary.tsv, sections.tsv
#   run  sbr evaluate


rule evaluate:
    input:
        unpack(lambda wildcards: inputs.evaluate(STUDY, wildcards.brain, own_folders)),
        plan="<results>/{brain}/plan/evaluate.json",
        prepared="<results>/{brain}/prepare/sections.tsv",
        planes="<results>/{brain}/resample/sections.tsv",
    output:
        summary="<results>/{brain}/evaluation/summary.tsv",
        sections="<results>/{brain}/evaluation/sections.tsv",
    log:
        "<results>/{brain}/logs/evaluate.log",
    benchmark:
        "<results>/{brain}/benchmarks/evaluate.tsv"
    conda:
        "../../envs/sbr.yaml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        options=CONFIG.section_json("evaluate"),
        methods=lambda wildcards: method_folders(STUDY, wildcards.brain, own_folders),
        out_dir=lambda wildcards, output: folder_of(output.summary),
        flags=lambda wildcards, input: flags(
            align_dir=folder_of(input.similarity) if "similarity" in input.keys() else None,
            landmarks=input.get("landmarks"),
            corrections=input.get("corrections"),
            # their landmarks are passed over; any other section without a row is a fault
            excluded=(
                list(STUDY.brains[wildcards.brain].excluded)
                if {"landmarks", "corrections"} & {*input.keys()}
                else None
            ),
            **label_values(STUDY, wildcards.brain, input),
            trusted="trust" in input.keys(),
            strict=CONFIG.strict and "plane_labels" in input.keys(),
        ),
    shell:
        "sbr evaluate --options {params.options:q} --brain {wildcards.brain:q}"
        " --methods {params.methods:q} --prepared {input.prepared:q} --planes {input.planes:q}"
        " {params.flags:q} --out-dir {params.out_dir:q} > {log:q} 2>&1"
