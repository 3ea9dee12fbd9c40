#!/usr/bin/env bash
# Snakemake runs this in the new environment, from the folder of the repository.
set -euo pipefail
python -m pip install --no-deps .
