// Compiled once per instruction set with NANOCP_SIMD_VARIANT set to its name.
#include "backend/cpu/simd/simd_kernels.h"

#include "backend/cpu/simd/attention_simd.h"
#include "backend/cpu/simd/linear_simd.h"

#define NANOCP_STRING_INNER(x) #x
#define NANOCP_STRING(x) NANOCP_STRING_INNER(x)
#define NANOCP_NAME_INNER(x) simd_kernels_##x
#define NANOCP_NAME(x) NANOCP_NAME_INNER(x)

namespace nanocp::cpu {

extern const SimdKernels NANOCP_NAME(NANOCP_SIMD_VARIANT);
const SimdKernels NANOCP_NAME(NANOCP_SIMD_VARIANT) = {NANOCP_STRING(NANOCP_SIMD_VARIANT),
                                                      linear_rows, decode_row, attend_tokens};

}  // namespace nanocp::cpu
