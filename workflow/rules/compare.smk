# compare: all methods on one brain, each trained one with the same budget of minutes
#   in   tables of all methods, their accuracy, their losses
#   out  {results}/{brain}/compare/evaluation/: tables as of evaluate
#        {results}/{brain}/compare/: summary.tsv, tests.tsv, figures/, index.html
#   run  sbr evaluate, sbr compare
#
# `snakemake --cores all compare` asks for it; nothing else does. The trainings are those of
# train.smk in folders {results}/{brain}/compare/{method}; they share the brain's registrar.


use rule evaluate as evaluate_compared with:
    input:
        unpack(lambda wildcards: inputs.evaluate(STUDY, wildcards.brain, compared_folders)),
        plan="<results>/{brain}/plan/evaluate.json",
        prepared="<results>/{brain}/prepare/sections.tsv",
        planes="<results>/{brain}/resample/sections.tsv",
    output:
        summary="<results>/{brain}/compare/evaluation/summary.tsv",
        sections="<results>/{brain}/compare/evaluation/sections.tsv",
    log:
        "<results>/{brain}/logs/compare/evaluate.log",
    benchmark:
        "<results>/{brain}/benchmarks/compare/evaluate.tsv"
    params:
        methods=lambda wildcards: method_folders(STUDY, wildcards.brain, compared_folders),


rule compare_methods:
    input:
        unpack(lambda wildcards: inputs.compare(STUDY, wildcards.brain)),
        plan="<results>/{brain}/plan/compare.json",
        measured="<results>/{brain}/compare/evaluation/sections.tsv",
        prepared="<results>/{brain}/prepare/sections.tsv",
        planes="<results>/{brain}/resample/sections.tsv",
    output:
        summary="<results>/{brain}/compare/summary.tsv",
        tests="<results>/{brain}/compare/tests.tsv",
        page=report(
            "<results>/{brain}/compare/index.html",
            caption="../report/compare.rst",
            category="Comparisons",
            labels={"brain": "{brain}"},
        ),
    log:
        "<results>/{brain}/logs/compare/compare.log",
    benchmark:
        "<results>/{brain}/benchmarks/compare/compare.tsv"
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        options=CONFIG.section_json("compare"),
        methods=lambda wildcards: method_folders(STUDY, wildcards.brain, compared_folders),
        out_dir=lambda wildcards, output: folder_of(output.summary),
        flags=lambda wildcards, input: flags(
            registrar=input.get("registrar"),
            align_dir=folder_of(input.similarity) if "similarity" in input.keys() else None,
            **label_values(STUDY, wildcards.brain, input),
        ),
    shell:
        "sbr compare --options {params.options:q} --brain {wildcards.brain:q}"
        " --methods {params.methods:q} --measured {input.measured:q}"
        " --prepared {input.prepared:q} --planes {input.planes:q} {params.flags:q}"
        " --out-dir {params.out_dir:q} > {log:q} 2>&1"
