#include "backend/cuda/kv_cache_fill.h"

#include <cuda_fp8.h>

#include <algorithm>

#include "backend/cuda/device/hash.cuh"
#include "backend/cuda/launch_overlapped.h"
#include "base/random.h"

namespace nanocp::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kGridMax = 132 * 16;
constexpr uint8_t kExponent = 118;  // 448 times 2^-9: below one

__global__ void fill_codes_kernel(FillCodesArgs args) {
  const int64_t block_bytes = args.num_codes + args.num_exponents;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  auto* bytes = static_cast<uint8_t*>(args.data);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < args.size_bytes;
       i += stride) {
    const auto noise =
        static_cast<uint32_t>(device::mix_bits(args.seed + static_cast<uint64_t>(i)));
    const float value = (static_cast<float>(noise >> 8) * 0x1p-23F - 1.0F) * 448.0F;
    const bool is_code = i % block_bytes < args.num_codes;
    bytes[i] = is_code ? __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3) : kExponent;
  }
}

}  // namespace

Status launch_fill_codes(const FillCodesArgs& args, cudaStream_t stream) {
  if (args.size_bytes < 1) return ok_status();
  if (args.num_codes < 1 || args.num_exponents < 1) {
    return invalid_argument("a block holds codes and exponents");
  }
  FillCodesArgs mixed = args;
  mixed.seed = nanocp::mix_bits(args.seed);
  const auto grid =
      static_cast<unsigned>(std::min(kGridMax, (args.size_bytes + kThreads - 1) / kThreads));
  fill_codes_kernel<<<grid, kThreads, 0, stream>>>(mixed);
  return cuda_status(cudaGetLastError(), "launch of a random cache");
}

}  // namespace nanocp::cuda
