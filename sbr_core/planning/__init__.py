"""What the workflow asks for and when it is made anew: plain Python, without Snakemake."""
