#!/usr/bin/env bash
# Builds the program and brings docs/benchmarks/sim-table.json and .md up to date. Options are those
# of bench/simulator/sim_table.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

tools/install_packages.sh bench
if [[ ! -f build/cpu/build.ninja ]]; then
  cmake --preset cpu -DNANOCP_TESTS=OFF >/dev/null
fi
cmake --build --preset cpu --target nanocp --parallel "$(num_jobs)"
exec python3 bench/simulator/sim_table.py "$@"
