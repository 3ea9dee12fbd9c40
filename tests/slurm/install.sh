#!/usr/bin/env bash
# Debian's SLURM for tests/slurm, where it is not there and can be had; no daemon of it is needed.
# Ends with 0 where the tests can run, else with 1 and the reason.
set -euo pipefail

missing=()
for program in munged slurmctld slurmd sbatch; do
    command -v "$program" > /dev/null || missing+=("$program")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "no ${missing[*]} here, and only root can install them"
    exit 1
fi
if ! command -v apt-get > /dev/null; then
    echo "no ${missing[*]} here, and no apt-get to install them with"
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
packages=(munge slurm-client slurmctld slurmd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } &> "$log"; then
    echo "no ${missing[*]} here, and apt-get could not install ${packages[*]}: $(tail -n 1 "$log")"
    exit 1
fi
