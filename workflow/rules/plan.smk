# plan: what the configuration and the tables ask of one stage, as a small file
#   out  {results}/{brain}/plan/{stage}.json, resample.{chunk}.json, collect.json
#
# Every rule that stands behind the global fit takes its plan as an input. Snakemake looks at a
# rule's own parameters only when nothing before it is to be run; behind an `ancient` input it
# then neither follows nor looks. A plan has no inputs, so it is always looked at, and a change
# of an option is seen even in the run in which a section is changed too.


localrules:
    plan,


rule plan:
    output:
        plan="<results>/{brain}/plan/{plan}.json",
    log:
        "<results>/{brain}/logs/plan/{plan}.log",
    conda:
        "../../envs/sbr.yaml"
    params:
        plan=lambda wildcards: plan_text(STUDY, wildcards.brain, wildcards.plan),
    shell:
        "printf '%s\\n' {params.plan:q} > {output.plan:q} 2> {log:q}"
