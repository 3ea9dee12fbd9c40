# report: one HTML page per brain, also part of `snakemake --report`
#   in   tables, volumes and losses of every method
#   out  {results}/{brain}/report/index.html
#   run  sbr report


rule report:
    input:
        unpack(lambda wildcards: inputs.report(STUDY, wildcards.brain)),
        plan="<results>/{brain}/plan/report.json",
        summary="<results>/{brain}/evaluation/summary.tsv",
        sections="<results>/{brain}/evaluation/sections.tsv",
    output:
        page=report(
            "<results>/{brain}/report/index.html",
            caption="../report/brain.rst",
            category="Brains",
            labels={"brain": "{brain}"},
        ),
    log:
        "<results>/{brain}/logs/report.log",
    benchmark:
        "<results>/{brain}/benchmarks/report.tsv"
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        options=CONFIG.section_json("report"),
        methods=lambda wildcards: method_folders(STUDY, wildcards.brain, own_folders),
        results_dir=lambda wildcards, output: folder_of(output.page, 2),
        flags=lambda wildcards, input: flags(**report_values(STUDY, wildcards.brain, input)),
    shell:
        "sbr report --options {params.options:q} --brain {wildcards.brain:q}"
        " --methods {params.methods:q} --results-dir {params.results_dir:q}"
        " {params.flags:q} --out {output.page:q} > {log:q} 2>&1"
