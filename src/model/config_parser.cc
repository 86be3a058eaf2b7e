#include "model/config_parser.h"

#include <utility>

#include "model/config_families.h"
#include "model/config_reader.h"
#include "model/config_validation.h"
#include "model/json_document.h"
#include "model/mapped_file.h"
#include "model/printable.h"

namespace nanocp::model {
namespace {

constexpr int64_t kConfigBytesMax = 16'000'000;

std::vector<TokenId> parse_eos(ConfigReader& config, int32_t vocab_size) {
  std::vector<TokenId> ids;
  for (const int64_t id : config.integers("eos_token_id", {0, vocab_size - 1})) {
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

tensor::WeightFormat parse_weight_format(ConfigReader& config) {
  const std::string older = config.text_or("torch_dtype", "");
  const std::string name = config.text_or("dtype", older.empty() ? "bfloat16" : older);
  if (!older.empty() && older != name) {
    config.reject("dtype is " + printable(name) + " but torch_dtype is " + printable(older));
  }
  if (name == "bfloat16") return tensor::WeightFormat::kBf16;
  if (name == "float16") return tensor::WeightFormat::kF16;
  if (name == "float32") return tensor::WeightFormat::kF32;
  config.reject_unsupported("dtype \"" + printable(name) +
                            "\" is not supported; use bfloat16, float16 or float32");
  return tensor::WeightFormat::kBf16;
}

QuantizationSpec parse_fp8(ConfigReader& quantization) {
  QuantizationSpec spec{.kind = Quantization::kFp8Block};
  const std::string format = quantization.text_or("fmt", "e4m3");
  if (format != "e4m3") {
    quantization.reject_unsupported("fmt \"" + printable(format) + "\" is not supported; use e4m3");
  }
  const auto block = quantization.integers("weight_block_size", {1, kSizeMax});
  if (block.size() != 2) {
    quantization.reject_unsupported(
        "fp8 needs a weight_block_size of two numbers, such as [128, 128]");
    return spec;
  }
  spec.block_rows = static_cast<int32_t>(block[0]);
  spec.block_cols = static_cast<int32_t>(block[1]);
  return spec;
}

QuantizationSpec parse_quantization(ConfigReader& config) {
  auto quantization = config.object("quantization_config");
  if (!quantization) return {};
  QuantizationSpec spec;
  const std::string method = quantization->text_or("quant_method", "");
  if (method == "fp8") {
    spec = parse_fp8(*quantization);
  } else if (method == "mxfp4") {
    spec.kind = Quantization::kMxfp4;
  } else {
    quantization->reject_unsupported("quant_method \"" + printable(method) +
                                     "\" is not supported; use a checkpoint in bf16, f16, f32, "
                                     "fp8 (block-wise) or mxfp4");
  }
  config.adopt(*quantization);
  return spec;
}

void parse_common(ConfigReader& config, ModelSpec& spec) {
  spec.vocab_size = static_cast<int32_t>(config.integer({"vocab_size"}, {1, kSizeMax}));
  spec.hidden_size = static_cast<int32_t>(config.integer({"hidden_size"}, {1, kSizeMax}));
  spec.num_layers = static_cast<int32_t>(config.integer({"num_hidden_layers"}, {1, kLayersMax}));
  spec.num_nextn_layers =
      static_cast<int32_t>(config.integer_or({"num_nextn_predict_layers"}, {0, kLayersMax}, 0));
  spec.max_position = config.integer({"max_position_embeddings"}, {1, kPositionMax});
  spec.tie_word_embeddings = config.boolean_or("tie_word_embeddings", false);
  const std::string activation = config.text_or("hidden_act", "silu");
  if (activation != "silu") {
    config.reject_unsupported("hidden_act \"" + printable(activation) +
                              "\" is not supported; every known family uses silu");
  }
  spec.weight_format = parse_weight_format(config);
  spec.quantization = parse_quantization(config);
  spec.eos_token_ids = parse_eos(config, spec.vocab_size);
}

}  // namespace

Result<ModelSpec> parse_config(std::string_view json_text, const std::string& file_name) {
  NANOCP_ASSIGN_OR_RETURN(const nlohmann::json document, parse_json(json_text, file_name));
  ConfigReader config(document, file_name);
  ModelSpec spec;
  const FamilyParser* family = choose_family(config, spec);
  NANOCP_RETURN_IF_ERROR(config.status());
  parse_common(config, spec);
  NANOCP_RETURN_IF_ERROR(config.status());
  family->parse(config, spec);
  NANOCP_RETURN_IF_ERROR(config.status());
  validate_spec(config, spec);
  NANOCP_RETURN_IF_ERROR(config.status());
  return spec;
}

Result<ModelSpec> read_config(const std::filesystem::path& file) {
  std::error_code ignored;
  const bool is_directory = std::filesystem::is_directory(file, ignored);
  const std::filesystem::path path = is_directory ? file / "config.json" : file;
  NANOCP_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kConfigBytesMax));
  return parse_config(text, display_name(path));
}

Result<std::vector<TokenId>> read_eos_token_ids(const std::filesystem::path& model_dir,
                                                const ModelSpec& spec) {
  const std::filesystem::path path = model_dir / "generation_config.json";
  auto text = read_text_file(path, kConfigBytesMax);
  if (!text.ok() && text.error().code == ErrorCode::kNotFound) return spec.eos_token_ids;
  NANOCP_RETURN_IF_ERROR(text);
  const std::string name = display_name(path);
  NANOCP_ASSIGN_OR_RETURN(const nlohmann::json document, parse_json(*text, name));
  ConfigReader config(document, name);
  std::vector<TokenId> ids = parse_eos(config, spec.vocab_size);
  NANOCP_RETURN_IF_ERROR(config.status());
  if (ids.empty()) return spec.eos_token_ids;
  return ids;
}

}  // namespace nanocp::model
