#!/usr/bin/env bash
# Runs clang-format with the given options over all C++ sources of the repository.
# Usage: tools/format.sh -i | --dry-run --Werror
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

tools/install_packages.sh test
git ls-files -z --cached --others --exclude-standard '*.h' '*.cc' '*.cu' '*.cuh' |
  xargs -0 -r clang-format "$@"
