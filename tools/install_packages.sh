#!/usr/bin/env bash
# Installs what is missing for `make run` (set: run), `make test` (set: test) or `make bench`
# (set: bench), from the packages of Debian 12 or Ubuntu 24.04. Does nothing when all are there.
# Usage: tools/install_packages.sh run|test|bench
set -euo pipefail

run_packages=(g++ cmake curl ninja-build pkg-config libopenblas-dev nlohmann-json3-dev libcli11-dev
  libutf8proc-dev libpcre2-dev zlib1g-dev prometheus-cpp-dev libboost-dev)
test_packages=("${run_packages[@]}" git python3 python3-venv libgtest-dev clang clang-tidy clang-format
  librsvg2-bin)

is_installed() {
  [[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# Prints the packages among the arguments that are not installed.
missing_packages() {
  local package
  for package in "$@"; do
    is_installed "$package" || echo "$package"
  done
}

apt() {
  local runner=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
  if [[ "$(id -u)" -ne 0 ]]; then
    if ! command -v sudo >/dev/null; then
      echo "error: not root and no sudo; as root, run: apt-get install -y ${missing[*]}" >&2
      exit 1
    fi
    runner=(sudo "${runner[@]}")
  fi
  "${runner[@]}" "$@" </dev/null
}

install_missing() {
  mapfile -t missing < <(missing_packages "$@")
  [[ ${#missing[@]} -eq 0 ]] && return
  echo "installing: ${missing[*]}"
  apt update -qq
  apt install -y -qq --no-install-recommends "${missing[@]}"
}

main() {
  local packages
  case "${1:-}" in
    run | bench) packages=("${run_packages[@]}") ;;
    test) packages=("${test_packages[@]}") ;;
    *) echo "usage: $0 run|test|bench" >&2; exit 2 ;;
  esac
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "note: no apt-get here; what is needed, by its Debian names: ${packages[*]}"
    return
  fi
  install_missing "${packages[@]}"
  if [[ "$1" == test ]]; then
    # The sanitizer and fuzzer runtime of the clang that is the default here.
    local major
    major="$(clang -dumpversion | cut -d. -f1)"
    install_missing "libclang-rt-${major}-dev"
  fi
}

main "$@"
