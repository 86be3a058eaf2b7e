# Shared by the scripts of this folder: the repository root, jobs and address-space handling.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# Jobs that the processors and the memory (2 GiB a compiler) allow. JOBS overrides it.
num_jobs() {
  local processors memory_jobs
  processors="$(nproc)"
  memory_jobs="$(awk '/MemAvailable/ { print int($2 / 2097152) }' /proc/meminfo)"
  ((memory_jobs < 1)) && memory_jobs=1
  echo "${JOBS:-$((processors < memory_jobs ? processors : memory_jobs))}"
}

# Sanitizer runtimes of gcc 12/13 and clang 14 cannot place their shadow memory where the kernel
# randomises 32 bits of addresses (Ubuntu 24.04's default): run them with a fixed layout if allowed.
without_aslr() {
  if setarch "$(uname -m)" -R true 2>/dev/null; then
    setarch "$(uname -m)" -R "$@"
  else
    "$@"
  fi
}

# The nvcc that cmake/cuda.cmake will find, or nothing.
find_nvcc() {
  command -v nvcc || { [[ -x /usr/local/cuda/bin/nvcc ]] && echo /usr/local/cuda/bin/nvcc; } || true
}
