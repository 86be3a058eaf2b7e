// What differs between model families in config.json. Keys and defaults follow each family's
// published configuration class.
#pragma once

#include "model/config_reader.h"
#include "model/model_spec.h"

namespace nanocp::model {

struct FamilyParser {
  Family family;
  const char* model_type;
  const char* architecture;
  // Fills what parse_common leaves: attention, rotary, experts, layers, norm epsilon.
  void (*parse)(ConfigReader& config, ModelSpec& spec);
};

// By model_type, or by architectures where there is none. Sets spec.family and spec.architecture.
// Null, with the reader's error set, if the model is not supported.
const FamilyParser* choose_family(ConfigReader& config, ModelSpec& spec);

}  // namespace nanocp::model
