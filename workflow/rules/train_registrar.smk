# train_registrar: weights of the registration network: shipped, or trained on MRI planes only
#   in   table of resample (ancient: a section more or less does not start the training again)
#   out  {results}/{brain}/registrar/: weights, losses as table and picture
#   run  sbr train-registrar


rule train_registrar:
    input:
        unpack(
            lambda wildcards: marked(
                inputs.train_registrar(STUDY, wildcards.brain, forced=is_forced("train_registrar"))
            )
        ),
        plan="<results>/{brain}/plan/train_registrar.json",
    output:
        weights="<results>/{brain}/registrar/weights.safetensors",
        losses="<results>/{brain}/registrar/loss.tsv",
        curve="<results>/{brain}/registrar/loss.png",
    log:
        "<results>/{brain}/logs/train_registrar.log",
    benchmark:
        "<results>/{brain}/benchmarks/train_registrar.tsv"
    conda:
        ENVIRONMENT_OF_NETWORKS
    threads: 16
    resources:
        **card_resources(CONFIG, lambda wildcards: cards(CONFIG, "train_registrar")),
        mem_mb=16000,
        runtime=1440,
    params:
        options=CONFIG.section_json("train_registrar"),
        out_dir=lambda wildcards, output: folder_of(output.weights),
        checkpoints=lambda wildcards, output: STUDY.checkpoints(wildcards.brain, "registrar"),
        source=CONFIG.registrar,
    shell:
        "sbr train-registrar --options {params.options:q} --planes {input.planes:q}"
        " --source {params.source:q} --out-dir {params.out_dir:q} --checkpoint-root {params.checkpoints:q} 2>&1 | tee {log:q}"
