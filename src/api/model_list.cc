#include "api/model_list.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace nanocp::api {
namespace {

using nlohmann::ordered_json;

ordered_json model_object(const std::string& name, const ModelContext& context) {
  return {{"id", name},
          {"object", "model"},
          {"created", context.created_s},
          {"owned_by", "nanocp"},
          {"root", context.served_names.front()},
          {"parent", nullptr},
          {"max_model_len", context.max_model_len}};
}

std::string text_of(const ordered_json& document) {
  return document.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace

std::string list_models(const ModelContext& context) {
  ordered_json list = ordered_json::array();
  for (const std::string& name : context.served_names) list.push_back(model_object(name, context));
  return text_of({{"object", "list"}, {"data", std::move(list)}});
}

ApiResult<std::string> describe_model(std::string_view id, const ModelContext& context) {
  const auto& names = context.served_names;
  const auto found = std::find(names.begin(), names.end(), id);
  if (found == names.end()) return model_not_found(std::string(id));
  return text_of(model_object(*found, context));
}

}  // namespace nanocp::api
