#!/usr/bin/env bash
# Builds the benchmarks (bench/, programs named *_bench) and runs each. Options are passed on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

tools/install_packages.sh bench
# The tests need more packages, so a folder without them stays without them.
if [[ ! -f build/cpu/build.ninja ]]; then
  cmake --preset cpu -DNANOCP_TESTS=OFF >/dev/null
else
  cmake -B build/cpu -DNANOCP_BENCH=ON >/dev/null
fi
cmake --build --preset cpu --target bench/all --parallel "$(num_jobs)"
for program in build/cpu/bin/*_bench; do
  echo "=== $program $*"
  "$program" "$@"
done
