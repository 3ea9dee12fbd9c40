# registered: each section on its plane with all its pixels, channels and colours, where
# registered.pixel_mm asks for it
#   in   receipts of prepare and infer of one chunk
#   out  {results}/{brain}/{method}/registered/chunks/{chunk}.tsv, the receipt of the images
#   run  sbr registered


rule registered:
    input:
        plan="<results>/{brain}/plan/registered.json",
        prepared="<results>/{brain}/prepare/chunks/{chunk}.tsv",
        sections="<results>/{brain}/{method}/chunks/{chunk}.tsv",
    output:
        receipt="<results>/{brain}/{method}/registered/chunks/{chunk}.tsv",
    log:
        "<results>/{brain}/logs/registered/{method}/{chunk}.log",
    benchmark:
        "<results>/{brain}/benchmarks/registered/{method}/{chunk}.tsv"
    conda:
        "../../envs/sbr.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        options=CONFIG.section_json("registered"),
        out_dir=lambda wildcards, output: folder_of(output.receipt, 2),
        flags=flags(strict=CONFIG.strict),
    shell:
        "sbr registered --options {params.options:q} --prepared {input.prepared:q}"
        " --sections {input.sections:q} {params.flags:q} --out-dir {params.out_dir:q}"
        " --receipt {output.receipt:q} > {log:q} 2>&1"
