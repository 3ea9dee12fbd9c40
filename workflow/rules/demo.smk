# demo: a brain to try everything on, and the truth behind it
#   out  data/demo/: manifest, images, labels, MRI with mask and labels, landmarks, truth
#   run  sbr demo
#
# It runs only while config/brains.tsv names data/demo/sections.tsv.


rule demo:
    output:
        manifest="data/demo/sections.tsv",
        images=expand("data/demo/{image}", image=[row["image"] for row in STUDY.demo.rows]),
        labels=expand("data/demo/{labels}", labels=[row["labels"] for row in STUDY.demo.rows]),
        mri="data/demo/mri.nii.gz",
        mri_mask="data/demo/mri_mask.nii.gz",
        mri_labels="data/demo/mri_labels.nii.gz",
        landmarks="data/demo/landmarks.tsv",
        truth="data/demo/truth.json",
    log:
        "<results>/logs/demo.log",
    benchmark:
        "<results>/benchmarks/demo.tsv"
    conda:
        "../../envs/sbr.yaml"
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        options=CONFIG.section_json("demo"),
        revision=REVISION["demo"],
        out_dir=lambda wildcards, output: folder_of(output.manifest),
    shell:
        "sbr demo --options {params.options:q} --out-dir {params.out_dir:q} > {log:q} 2>&1"
