// Hardware profiles (profiles/*.json) and model shapes for the cost model.
#pragma once

#include <string>

#include "base/result.h"
#include "model/model_spec.h"
#include "sim/hardware_profile.h"

namespace nanocp::apps {

// `name` is a file, or a bundled profile such as "h100-nvlink". Errors name the file and field.
Result<sim::HardwareProfile> read_hardware_profile(const std::string& name);

// Adds the constants that `nanocp calibrate` measured for one model; they go before derived ones.
Status add_measured_constants(const std::string& file, sim::HardwareProfile& profile);

// The shape of a model called `name`; K/V in `kv_bytes_per_value` bytes.
sim::ModelShape model_shape(const model::ModelSpec& spec, const std::string& name,
                            double kv_bytes_per_value);

}  // namespace nanocp::apps
