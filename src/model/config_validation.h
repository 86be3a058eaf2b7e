// Limits of a model's sizes, and the checks that need more than one key.
#pragma once

#include <cstdint>

#include "model/config_reader.h"
#include "model/model_spec.h"

namespace nanocp::model {

// Far above every known model, and low enough that no product below overflows 64 bits.
constexpr int64_t kSizeMax = 1 << 24;  // hidden, intermediate, vocabulary, ranks
constexpr int64_t kLayersMax = 1 << 12;
constexpr int64_t kHeadsMax = 1 << 14;
constexpr int64_t kHeadDimMax = 1 << 14;
constexpr int64_t kExpertsMax = 1 << 14;
constexpr int64_t kPositionMax = (int64_t{1} << 31) - 1;
constexpr double kParametersMax = 1e15;
constexpr int64_t kExpertMatricesMax = 3'000'000;  // over all layers

// Rejects, through the reader, a spec whose parts contradict each other.
void validate_spec(ConfigReader& config, const ModelSpec& spec);

}  // namespace nanocp::model
