#!/usr/bin/env bash
# Everything CI runs: presets built and tested, fuzzers, the CUDA build compiled, clang-tidy.
# All steps run even after a failure; the last lines are a table of times and the total count.
# Usage: tools/test_all.sh [STEP ...]   (default: all)
# Steps: cpu clients cuda asan tsan clang_tidy
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

jobs="$(num_jobs)"
logs="$root/build/logs"
table=()
num_passed=0
num_failed=0
num_skipped=0

build() {  # build PRESET [cmake options]
  local preset="$1"
  shift
  cmake --preset "$preset" "$@" && cmake --build --preset "$preset" --parallel "$jobs"
}

run_ctest() {
  without_aslr ctest --preset "$1" --parallel "$jobs" --no-tests=error
}

# From nothing it is quicker to compile several sources as one. The sanitizers' presets do so in the
# opposite order, which shows includes that are missing.
step_cpu() { build ci && run_ctest ci; }
step_asan() { build asan && run_ctest asan; }
step_tsan() { build tsan && run_ctest tsan; }
step_clang_tidy() { cmake --preset cpu && python3 tools/clang_tidy.py build/cpu --jobs "$jobs"; }

# Clients from PyPI against the program of the step cpu.
step_clients() {
  cmake --preset ci && cmake --build --preset ci --parallel "$jobs" --target nanocp &&
    python3 tests/clients/run.py build/ci/bin/nanocp build openai
}

# The program must build, link and answer on a host with or without a GPU. All that knows no device is
# the same as without CUDA and is not compiled again, so this comes last in that folder.
step_cuda() {
  if [[ -z "$(find_nvcc)" ]]; then
    echo "left out: no nvcc in PATH or /usr/local/cuda/bin, so the CUDA build was not compiled"
    return 0
  fi
  build ci -DNANOCP_CUDA=ON -DNANOCP_TESTS=OFF -DNANOCP_HEADER_CHECK=OFF &&
    python3 tools/check_devices_command.py build/ci/bin/nanocp
}

# Prints "passed failed skipped" of a step, from ctest's closing lines (skipped tests count as passed
# there); a step without them counts as one test.
count_tests() {  # count_tests LOG STATUS
  local failed total skipped
  if read -r failed total < <(sed -nE \
    's/^[0-9]+% tests passed, ([0-9]+) tests failed out of ([0-9]+).*/\1 \2/p' "$1" | tail -n 1); then
    skipped="$(grep -cE '^[[:space:]]+[0-9]+ - .* \(Skipped\)$' "$1" || true)"
    if [[ "$2" -ne 0 && "$failed" -eq 0 ]]; then failed=1 total=$((total + 1)); fi
    echo "$((total - failed - skipped)) $failed $skipped"
  elif grep -q '^left out:' "$1"; then
    echo "0 0 1"
  elif [[ "$2" -eq 0 ]]; then
    echo "1 0 0"
  else
    echo "0 1 0"
  fi
}

run_step() {
  local name="$1" log="$logs/$1.log" start=$SECONDS status=0 passed failed skipped outcome=passed
  echo "=== $name"
  ("step_$name") </dev/null 2>&1 | tee "$log" || status=$?
  read -r passed failed skipped < <(count_tests "$log" "$status")
  if [[ "$status" -ne 0 ]]; then
    outcome=FAILED
  elif grep -q '^left out:' "$log"; then
    outcome="left out"
  fi
  num_passed=$((num_passed + passed))
  num_failed=$((num_failed + failed))
  num_skipped=$((num_skipped + skipped))
  table+=("$(printf '%-12s %-9s %6d s %6d passed %4d failed %4d skipped' \
    "$name" "$outcome" $((SECONDS - start)) "$passed" "$failed" "$skipped")")
}

main() {
  local steps=("$@") step
  [[ ${#steps[@]} -gt 0 ]] || steps=(cpu clients cuda asan tsan clang_tidy)
  for step in "${steps[@]}"; do
    declare -F "step_$step" >/dev/null || { echo "unknown step: $step" >&2; exit 2; }
  done
  tools/install_packages.sh test
  mkdir -p "$logs"
  for step in "${steps[@]}"; do
    run_step "$step"
  done
  echo
  printf '%s\n' "${table[@]}"
  echo "total $SECONDS s on $jobs jobs"
  echo "$num_passed passed, $num_failed failed, $num_skipped skipped"
  [[ "$num_failed" -eq 0 ]]
}

main "$@"
