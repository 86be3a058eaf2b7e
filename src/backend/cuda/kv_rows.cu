// One block per row; a thread moves vectors of 16 bytes. Of a cache of 8-bit codes each head also
// has an exponent, one byte behind the codes of its block: b * block_stride + num_heads *
// head_stride + h * block_size + t.
#include "backend/cuda/kv_rows.h"

#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

constexpr int32_t kThreads = 128;
constexpr int32_t kVectorBytes = 16;

int32_t value_bytes(const CacheRows& rows) {
  return rows.layout.type == CacheType::kBf16 ? 2 : 1;
}

int32_t exponents_per_token(const CacheRows& rows) {
  if (rows.layout.type == CacheType::kBf16) return 0;
  return rows.num_heads * (rows.has_values ? 2 : 1);
}

struct MoveArgs {
  CacheRowsArgs cache;
  int32_t value_bytes;
  int32_t head_vectors;  // of one token and head
  int32_t part_vectors;  // of the K or the V of a token
  int32_t row_vectors;
  int32_t row_bytes;      // of a packed row, with exponents and padding
  int32_t num_exponents;  // of a token; 0: bf16
};

// Moves one way or the other.
template <bool kGather, typename T>
__device__ void move(T* place, T* packed) {
  if constexpr (kGather) {
    *packed = *place;
  } else {
    *place = *packed;
  }
}

// Where vector `index` of a token lies in the heap.
__device__ uint4* place_of(const MoveArgs& args, int64_t slot, int32_t index) {
  const CacheLayout& layout = args.cache.rows.layout;
  const bool is_value = index >= args.part_vectors;
  const int32_t in_part = index - (is_value ? args.part_vectors : 0);
  const int32_t head = in_part / args.head_vectors;
  const int64_t block = slot / layout.block_size;
  const int64_t token = slot - block * layout.block_size;
  const int64_t value = block * layout.block_stride + head * layout.head_stride +
                        token * args.cache.rows.token_values;
  uint8_t* part = args.cache.heap + (is_value ? layout.v_offset : layout.k_offset);
  return reinterpret_cast<uint4*>(part + value * args.value_bytes) + in_part % args.head_vectors;
}

__device__ uint8_t* exponent_of(const MoveArgs& args, int64_t slot, int32_t index) {
  const CacheLayout& layout = args.cache.rows.layout;
  const int32_t heads = args.cache.rows.num_heads;
  const int64_t block = slot / layout.block_size;
  const int64_t token = slot - block * layout.block_size;
  uint8_t* part = args.cache.heap + (index >= heads ? layout.v_offset : layout.k_offset);
  return part + block * layout.block_stride + heads * layout.head_stride +
         int64_t{index % heads} * layout.block_size + token;
}

template <bool kGather>
__global__ void __launch_bounds__(kThreads)
    move_rows_kernel(const __grid_constant__ MoveArgs args) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const int64_t slot = args.cache.slots[blockIdx.x];
  uint8_t* row = args.cache.packed + static_cast<int64_t>(blockIdx.x) * args.row_bytes;
  auto* vectors = reinterpret_cast<uint4*>(row);
  for (auto i = static_cast<int32_t>(threadIdx.x); i < args.row_vectors; i += kThreads) {
    move<kGather>(place_of(args, slot, i), vectors + i);
  }
  uint8_t* exponents = row + args.row_vectors * kVectorBytes;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < args.num_exponents; i += kThreads) {
    move<kGather>(exponent_of(args, slot, i), exponents + i);
  }
}

Status launch(void (*kernel)(MoveArgs), const CacheRowsArgs& cache, cudaStream_t stream,
              const char* what) {
  if (cache.num_rows == 0) return ok_status();
  const CacheRows& rows = cache.rows;
  MoveArgs args = {};
  args.cache = cache;
  args.value_bytes = value_bytes(rows);
  const int32_t head_bytes = rows.token_values * args.value_bytes;
  if (rows.num_heads < 1 || head_bytes < kVectorBytes || head_bytes % kVectorBytes != 0 ||
      rows.layout.block_size < 1) {
    return unsupported(std::string(what) + " covers heads of a multiple of 16 bytes, not " +
                       std::to_string(rows.num_heads) + " of " + std::to_string(head_bytes));
  }
  args.head_vectors = head_bytes / kVectorBytes;
  args.part_vectors = rows.num_heads * args.head_vectors;
  args.row_vectors = args.part_vectors * (rows.has_values ? 2 : 1);
  args.row_bytes = static_cast<int32_t>(cache_row_bytes(rows));
  args.num_exponents = exponents_per_token(rows);
  return launch_overlapped(kernel, dim3(static_cast<unsigned>(cache.num_rows)), kThreads, args,
                           stream, what);
}

}  // namespace

int64_t cache_row_bytes(const CacheRows& rows) {
  const int64_t values = int64_t{rows.num_heads} * rows.token_values * (rows.has_values ? 2 : 1);
  const int64_t bytes = values * value_bytes(rows) + exponents_per_token(rows);
  return (bytes + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
}

Status launch_gather_cache_rows(const CacheRowsArgs& args, cudaStream_t stream) {
  return launch(move_rows_kernel<true>, args, stream, "the gathering of new K/V");
}

Status launch_scatter_cache_rows(const CacheRowsArgs& args, cudaStream_t stream) {
  return launch(move_rows_kernel<false>, args, stream, "the storing of received K/V");
}

}  // namespace nanocp::cuda
