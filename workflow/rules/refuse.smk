# refuse: a brain that cannot be used, seen at planning, as a job that fails: with `--keep-going` the
# other brains run, and the run ends as failed; without, it ends before anything else is begun
#   out  nothing; its log is not in the brain's folder, which may lead elsewhere by a link


localrules:
    refuse,


rule refuse:
    output:
        never=".snakemake/sbr_refused/{brain}",
    log:
        ".snakemake/sbr_refused/{brain}.log",
    wildcard_constraints:
        brain=one_of(STUDY.faults),
    priority: 100
    conda:
        "../../envs/sbr.yaml"
    params:
        why=lambda wildcards: STUDY.faults[wildcards.brain],
    shell:
        "printf 'sbr workflow: %s\\n' {params.why:q} 2>&1 | tee {log:q}; exit 2"
