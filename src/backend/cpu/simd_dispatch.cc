#include <cstdlib>
#include <string_view>

#include "backend/cpu/simd/simd_kernels.h"

namespace nanocp::cpu {

extern const SimdKernels simd_kernels_baseline;
#ifdef NANOCP_X86_SIMD
extern const SimdKernels simd_kernels_avx2;
extern const SimdKernels simd_kernels_avx512;
#endif

SimdVariants supported_simd_variants() {
  SimdVariants variants = {{&simd_kernels_baseline, nullptr, nullptr}, 1};
#ifdef NANOCP_X86_SIMD
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    variants.sets[variants.count++] = &simd_kernels_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      variants.sets[variants.count++] = &simd_kernels_avx512;
    }
  }
#endif
  return variants;
}

const SimdKernels& simd_kernels() {
  static const SimdKernels& chosen = [&]() -> const SimdKernels& {
    const SimdVariants variants = supported_simd_variants();
    const char* wanted = std::getenv("NANOCP_SIMD");
    for (int i = 0; wanted != nullptr && i < variants.count; ++i) {
      if (std::string_view(wanted) == variants.sets[i]->name) return *variants.sets[i];
    }
    return *variants.sets[variants.count - 1];
  }();
  return chosen;
}

}  // namespace nanocp::cpu
