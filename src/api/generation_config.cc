#include "api/generation_config.h"

#include <cmath>
#include <limits>

#include "text/json_field.h"
#include "text/text_file.h"

namespace nanocp::api {
namespace {

constexpr int64_t kFileBytesMax = int64_t{16} << 20;

// `out` stays where the file does not say.
Status read_number(const text::JsonField& config, const char* name, double low, double high,
                   float& out) {
  const text::JsonField field = config.member(name);
  if (field.is_null()) return ok_status();
  if (!field.value().is_number()) return field.invalid("must be a number");
  const auto value = field.value().get<double>();
  if (!(value >= low && value <= high)) return field.invalid("is out of its range");
  out = static_cast<float>(value);
  return ok_status();
}

Status read_integer(const text::JsonField& config, const char* name, int64_t low, int32_t& out) {
  const text::JsonField field = config.member(name);
  if (field.is_null()) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(const int64_t value,
                          field.integer(low, std::numeric_limits<int32_t>::max()));
  out = static_cast<int32_t>(value);
  return ok_status();
}

}  // namespace

Result<SamplingDefaults> load_sampling_defaults(const std::filesystem::path& model_dir) {
  const std::filesystem::path file = model_dir / "generation_config.json";
  const Result<std::string> content = text::read_text_file(file, kFileBytesMax);
  if (!content.ok() && content.error().code == ErrorCode::kNotFound) return SamplingDefaults();
  if (!content.ok()) return content.error();
  return parse_sampling_defaults(content.value(), file.string());
}

Result<SamplingDefaults> parse_sampling_defaults(std::string_view json_text,
                                                 const std::string& name) {
  NANOCP_ASSIGN_OR_RETURN(const nlohmann::json document, text::parse_json(json_text, name));
  const text::JsonField config(document, name);
  NANOCP_RETURN_IF_ERROR(config.expect_object());
  SamplingDefaults defaults;
  NANOCP_RETURN_IF_ERROR(read_number(config, "temperature", 0, 1e9, defaults.temperature));
  NANOCP_RETURN_IF_ERROR(read_number(config, "top_p", 1e-6, 1, defaults.top_p));
  NANOCP_RETURN_IF_ERROR(read_number(config, "min_p", 0, 1, defaults.min_p));
  NANOCP_RETURN_IF_ERROR(
      read_number(config, "repetition_penalty", 1e-6, 1e9, defaults.repetition_penalty));
  NANOCP_RETURN_IF_ERROR(read_integer(config, "top_k", 0, defaults.top_k));
  NANOCP_RETURN_IF_ERROR(read_integer(config, "max_new_tokens", 1, defaults.max_tokens));
  return defaults;
}

}  // namespace nanocp::api
