# check_sections: a coarse look at the sections of a chunk, with their masks, labels and MRI planes
#   out  {results}/{brain}/check/chunks/{chunk}.tsv
#   run  sbr check-sections
# check: whether all inputs of a brain can belong together; a brain of which some cannot is left out
#   in   what was seen of its sections, the MRI with mask and labels, landmarks
#   out  {results}/{brain}/check/findings.tsv, check.json
#   run  sbr check
# pass_check: what a brain waits for before its first results; `prepare` has it as an input
#   out  {results}/{brain}/check/passed
#
# Once it is there, no rule makes it any more, so that nothing is behind `prepare` but the user's
# files and an edited row is seen by it; brains that were begun without it do not wait for it.


localrules:
    pass_check,


rule check_sections:
    input:
        images=lambda wildcards: inputs.check_sections(STUDY, wildcards.brain, wildcards.chunk),
    output:
        receipt="<results>/{brain}/check/chunks/{chunk}.tsv",
    log:
        "<results>/{brain}/logs/check/{chunk}.log",
    benchmark:
        "<results>/{brain}/benchmarks/check/{chunk}.tsv"
    priority: 50
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        options=CONFIG.section_json("prepare"),
        revision=REVISION["check"],
        rows=lambda wildcards: chunk_json(STUDY, wildcards.brain, wildcards.chunk),
        rows_file=lambda wildcards, output: rows_file(output.receipt),
        out_dir=lambda wildcards, output: folder_of(output.receipt, 2),
    shell:
        "rm -f {params.rows_file:q}; printf '%s\\n' {params.rows:q} > {params.rows_file:q};"
        " sbr check-sections --options {params.options:q} --rows {params.rows_file:q}"
        " --out-dir {params.out_dir:q} --receipt {output.receipt:q} > {log:q} 2>&1"


rule check:
    input:
        unpack(lambda wildcards: inputs.check(STUDY, wildcards.brain)),
    output:
        findings="<results>/{brain}/check/findings.tsv",
        facts="<results>/{brain}/check/check.json",
    log:
        "<results>/{brain}/logs/check.log",
    benchmark:
        "<results>/{brain}/benchmarks/check.tsv"
    priority: 50
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        options=CONFIG.section_json("check"),
        revision=REVISION["check"],
        manifest=lambda wildcards: STUDY.brains[wildcards.brain].row.sections,
        out_dir=lambda wildcards, output: folder_of(output.findings),
        flags=lambda wildcards, input: flags(
            mri=input.get("mri"),
            mri_mask=input.get("mri_mask"),
            mri_labels=input.get("mri_labels"),
            landmarks=input.get("landmarks"),
            orientation=STUDY.brains[wildcards.brain].row.orientation or None,
            prealigned=STUDY.brains[wildcards.brain].prealigned,
            in_order=CONFIG.align.positions == "order",
            work=work_json(CONFIG, STUDY.trainings(wildcards.brain)),
        ),
    shell:
        "sbr check --options {params.options:q} {params.manifest:q} --brain {wildcards.brain:q}"
        " --receipts {input.receipts:q} {params.flags:q} --out-dir {params.out_dir:q}"
        " > {log:q} 2>&1"


rule pass_check:
    input:
        findings=ancient("<results>/{brain}/check/findings.tsv"),
    output:
        passed="<results>/{brain}/check/passed",
    log:
        "<results>/{brain}/logs/pass_check.log",
    wildcard_constraints:
        brain=one_of(inputs.not_passed(STUDY)),
    priority: 50
    conda:
        "../../envs/sbr.yaml"
    shell:
        "printf 'all inputs can belong together\\n' > {output.passed:q} 2> {log:q}"
