# refuse: a brain that cannot be used, seen at planning, as a job that fails: with `--keep-going` the
# other brains run, and the run ends as failed; without, it ends before anything else is begun
#   out  nothing


localrules:
    refuse,


rule refuse:
    output:
        never="<results>/{brain}/refused",
    log:
        "<results>/{brain}/logs/refuse.log",
    wildcard_constraints:
        brain=one_of(STUDY.faults),
    priority: 100
    conda:
        "../../envs/sbr.yaml"
    params:
        why=lambda wildcards: STUDY.faults[wildcards.brain],
    shell:
        "printf 'sbr workflow: %s\\n' {params.why:q} 2>&1 | tee {log:q}; exit 2"
