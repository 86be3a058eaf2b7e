#!/usr/bin/env bash
# Installs what is missing, builds the program and lets the bundled model answer a short and a long
# prompt on four CPU instances. Options are passed on to `nanocp generate`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

tools/install_packages.sh run
# A build folder that has the tests keeps them; a new one needs only the program.
if [[ ! -f build/cpu/build.ninja ]]; then
  cmake --preset cpu -DNANOCP_TESTS=OFF -DNANOCP_BENCH=OFF >/dev/null
fi
cmake --build --preset cpu --target nanocp --parallel "$(num_jobs)"
