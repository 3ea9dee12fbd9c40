# train: weights of a method's networks, trained on sections and their MRI planes
#   in   tables of resample and align_sections (ancient, as for the registrar); the shared
#        registrar, for methods that train through it or start at it; labels, for the method that
#        learns from them; another brain's networks, where weights_use is finetune
#   out  {results}/{brain}/{method}/ or, in a comparison, {results}/{brain}/compare/{method}/: weights, losses as table and picture
#   run  sbr train


rule train:
    input:
        unpack(
            lambda wildcards: marked(
                inputs.train(STUDY, wildcards.brain, wildcards.method, forced=is_forced("train"))
            )
        ),
        plan=lambda wildcards: inputs.training_plan(STUDY, wildcards.brain, wildcards.method),
    output:
        weights="<results>/{brain}/{method}/weights.safetensors",
        losses="<results>/{brain}/{method}/loss.tsv",
        curve="<results>/{brain}/{method}/loss.png",
    log:
        "<results>/{brain}/logs/train/{method}.log",
    benchmark:
        "<results>/{brain}/benchmarks/train/{method}.tsv"
    wildcard_constraints:
        method=one_of(m for m in METHOD_FOLDERS if method_of(m) in TRAINED_METHODS),
    conda:
        ENVIRONMENT_OF_NETWORKS
    threads: 16
    resources:
        **card_resources(
            CONFIG, lambda wildcards: cards(CONFIG, f"train_{method_of(wildcards.method)}")
        ),
        mem_mb=16000,
        runtime=2880,
    params:
        method=lambda wildcards: method_of(wildcards.method),
        options=lambda wildcards: training_options(STUDY, wildcards.brain, wildcards.method),
        out_dir=lambda wildcards, output: folder_of(output.weights),
        checkpoints=lambda wildcards, output: STUDY.checkpoints(wildcards.brain, wildcards.method),
        flags=lambda wildcards, input: flags(
            registrar=input.get("registrar"),
            start=input.get("start"),
            prepared=input.get("prepared"),
            align_dir=folder_of(input.similarity) if "mri_labels" in input.keys() else None,
            **label_values(STUDY, wildcards.brain, input),
            strict=CONFIG.strict and "prepared" in input.keys(),
        ),
    shell:
        "sbr train --method {params.method:q} --options {params.options:q}"
        " --planes {input.planes:q} --sections {input.sections:q} {params.flags:q}"
        " --out-dir {params.out_dir:q} --checkpoint-root {params.checkpoints:q} 2>&1 | tee {log:q}"
