# doctor: what seems wrong with the sections, judged by their neighbours; nothing but the report
# stands behind it, since it proposes and the manifest decides
#   in   table of prepare
#   out  {results}/{brain}/doctor/findings.tsv, contact_sheet.png, doctor.json
#   run  sbr doctor


rule doctor:
    input:
        plan="<results>/{brain}/plan/doctor.json",
        prepared="<results>/{brain}/prepare/sections.tsv",
    output:
        findings="<results>/{brain}/doctor/findings.tsv",
        contact_sheet="<results>/{brain}/doctor/contact_sheet.png",
        facts="<results>/{brain}/doctor/doctor.json",
    log:
        "<results>/{brain}/logs/doctor.log",
    benchmark:
        "<results>/{brain}/benchmarks/doctor.tsv"
    conda:
        "../../envs/sbr.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        options=CONFIG.section_json("doctor"),
        out_dir=lambda wildcards, output: folder_of(output.findings),
        flags=lambda wildcards, input: flags(prealigned=STUDY.brains[wildcards.brain].prealigned),
    shell:
        "sbr doctor --options {params.options:q} --prepared {input.prepared:q} {params.flags:q}"
        " --out-dir {params.out_dir:q} 2>&1 | tee {log:q}"
