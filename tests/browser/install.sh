#!/usr/bin/env bash
# Debian's Chromium for tests/browser, where it is not there and can be had. Ends with 0 where the
# tests can run, else with 1 and the reason.
set -euo pipefail

if command -v chromium > /dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "no chromium here, and only root can install it"
    exit 1
fi
if ! command -v apt-get > /dev/null; then
    echo "no chromium here, and no apt-get to install it with"
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && apt-get install -y --no-install-recommends chromium; } &> "$log"; then
    echo "no chromium here, and apt-get could not install it: $(tail -n 1 "$log")"
    exit 1
fi
