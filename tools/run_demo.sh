#!/usr/bin/env bash
# Installs what is missing, builds the program and lets the bundled model answer two short prompts
# and a long one on four CPU instances. Options are passed on to `nanocp generate`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

tools/install_packages.sh run
# A build folder that has the tests keeps them; a new one needs only the program.
if [[ ! -f build/cpu/build.ninja ]]; then
  cmake --preset cpu -DNANOCP_TESTS=OFF -DNANOCP_BENCH=OFF >/dev/null
fi
cmake --build --preset cpu --target nanocp --parallel "$(num_jobs)"

# A shard of 64 tokens is too little to be worth a second instance on real models; here it shows
# how the long prompt (the start of ARCHITECTURE.md) is spread while the short ones stay local.
echo "build/cpu/bin/nanocp generate --instances 4 --min-tokens-per-shard 64 --max-tokens 24 ..."
build/cpu/bin/nanocp generate --instances 4 --min-tokens-per-shard 64 --max-tokens 24 \
  --prompt "Hello" \
  --prompt "Why does a long request need more than one instance?" \
  --prompt "$(head -c 1500 ARCHITECTURE.md)" "$@"
