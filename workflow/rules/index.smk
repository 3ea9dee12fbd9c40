# index: one page over all brains, made anew whenever a report is
#   in   reports of all brains of the sheet
#   out  {results}/index.html
#   run  sbr index
#
# Where a brain fails, `onerror` writes it instead, so that it lists what is missing.


localrules:
    index,


rule index:
    input:
        reports=expand("<results>/{brain}/report/index.html", brain=STUDY.of_sheet),
    output:
        page="<results>/index.html",
    log:
        "<results>/logs/index.log",
    conda:
        "../../envs/sbr.yaml"
    params:
        results=lambda wildcards, output: folder_of(output.page),
        brains=[*STUDY.of_sheet, *STUDY.faults],
    shell:
        "sbr index {params.results:q} --brains {params.brains:q} > {log:q} 2>&1"
