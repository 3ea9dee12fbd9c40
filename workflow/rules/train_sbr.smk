# train_sbr: weights of the synthesis network, trained through the frozen registrar
#   in   tables of resample and align_sections (ancient, as for the registrar), the registrar
#   out  {results}/{brain}/{method}/: weights, losses as table and picture
#   run  sbr train-sbr


rule train_sbr:
    input:
        plan="<results>/{brain}/plan/train_{method}.json",
        planes=steady("train_sbr", "resample", "sections.tsv"),
        sections=steady("train_sbr", "align_sections", "sections.tsv"),
        registrar="<results>/{brain}/registrar/weights.safetensors",
    output:
        weights="<results>/{brain}/{method}/weights.safetensors",
        losses="<results>/{brain}/{method}/loss.tsv",
        curve="<results>/{brain}/{method}/loss.png",
    log:
        "<results>/{brain}/logs/train_{method}.log",
    benchmark:
        "<results>/{brain}/benchmarks/train_{method}.tsv"
    conda:
        "../../envs/sbr.yaml"
    threads: 16
    resources:
        mem_mb=16000,
        runtime=2880,
        gpu=lambda wildcards: gpus(f"train_{wildcards.method}"),
    params:
        options=lambda wildcards: options(f"train_{wildcards.method}"),
        out_dir=lambda wildcards, output: parent(output.weights),
        checkpoints=lambda wildcards, output: checkpoint_root(wildcards.brain, wildcards.method),
    shell:
        "sbr train-sbr --method {wildcards.method:q} --options {params.options:q}"
        " --planes {input.planes:q} --sections {input.sections:q}"
        " --registrar {input.registrar:q} --out-dir {params.out_dir:q}"
        " --checkpoint-root {params.checkpoints:q} 2>&1 | tee {log:q}"
