// Which arguments of a request's tools are strings, for formats that write values without quotes.
// Immutable after construction.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace nanocp::api {

enum class ArgumentType {
  kString,          // a string whatever it looks like
  kNullableString,  // likewise, but for null
  kOther,           // or not known: JSON if it reads as JSON, else a string
};

class ToolTypes {
 public:
  // `tools` as OpenAI writes them; what does not have their form is not looked at.
  explicit ToolTypes(const nlohmann::ordered_json* tools);

  ArgumentType type_of(std::string_view tool, std::string_view argument) const;

 private:
  std::map<std::string, std::map<std::string, ArgumentType, std::less<>>, std::less<>> types_;
};

}  // namespace nanocp::api
