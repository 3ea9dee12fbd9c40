# trust: how far each section of a method lies from where it belongs, as it can be told without truth
#   in   tables of every method, prepare, resample and align_sections, what the doctor found
#   out  {results}/{brain}/{method}/trust/sections.tsv, and a map of each section beside it
#   run  sbr trust


rule trust:
    input:
        unpack(lambda wildcards: inputs.trust(STUDY, wildcards.brain)),
        plan="<results>/{brain}/plan/trust.json",
        prepared="<results>/{brain}/prepare/sections.tsv",
        planes="<results>/{brain}/resample/sections.tsv",
        affines="<results>/{brain}/align_sections/sections.tsv",
    output:
        table="<results>/{brain}/{method}/trust/sections.tsv",
    log:
        "<results>/{brain}/logs/trust/{method}.log",
    benchmark:
        "<results>/{brain}/benchmarks/trust/{method}.tsv"
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        options=CONFIG.section_json("trust"),
        methods=lambda wildcards: method_folders(STUDY, wildcards.brain, own_folders),
        out_dir=lambda wildcards, output: folder_of(output.table),
        flags=lambda wildcards, input: flags(
            findings=input.get("findings"),
            accepted=accepted_sections(STUDY, wildcards.brain),
            strict=CONFIG.strict,
        ),
    shell:
        "sbr trust --options {params.options:q} --method {wildcards.method:q}"
        " --methods {params.methods:q} --prepared {input.prepared:q} --planes {input.planes:q}"
        " --affines {input.affines:q} {params.flags:q} --out-dir {params.out_dir:q}"
        " > {log:q} 2>&1"
