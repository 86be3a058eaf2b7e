#include "api/structured_output.h"

#include <utility>

namespace nanocp::api {
namespace {

using grammar::ResponseFormat;
using Json = nlohmann::ordered_json;
using Kind = ResponseFormat::Kind;

// Collects what the fields ask for; complaints go to the body's reader.
class FormatReader {
 public:
  FormatReader(BodyReader& body, const ModelContext& context)
      : body_(body), text_max_(static_cast<size_t>(context.limits.schema_bytes_max)) {}

  std::optional<WantedFormat> read() {
    read_response_format();
    read_guided(body_, "guided_");
    if (const Json* object = body_.object("structured_outputs")) {
      BodyReader options(*object, "structured_outputs");
      if (options.boolean("json_object", false)) {
        set(options.path_of("json_object"), {.kind = Kind::kJsonObject});
      }
      if (options.find("structural_tag") != nullptr) {
        options.fail("structural_tag", "is not supported", "unsupported_parameter");
      }
      read_guided(options, "");
      options.ignore({"disable_fallback", "disable_any_whitespace", "disable_additional_properties",
                      "whitespace_pattern"});
      if (!options.unknown().empty()) {
        body_.fail(options.unknown().front(), "is not supported", "unsupported_parameter");
      }
      if (options.failed()) body_.fail(options.error());
    }
    body_.ignore({"guided_decoding_backend", "guided_whitespace_pattern"});
    return std::move(wanted_);
  }

 private:
  void read_response_format() {
    const Json* object = body_.object("response_format");
    if (object == nullptr) return;
    BodyReader format(*object, "response_format");
    const std::string type = format.string("type", 64, {});
    if (type == "json_object") {
      set("response_format", {.kind = Kind::kJsonObject});
    } else if (type == "json_schema") {
      read_named_schema(format);
    } else if (type != "text") {
      format.fail("type", "must be \"text\", \"json_object\" or \"json_schema\"");
    }
    if (format.failed()) body_.fail(format.error());
  }

  // {"name", "schema", "strict", "description"}
  void read_named_schema(BodyReader& format) {
    const Json* object = format.object("json_schema");
    if (object == nullptr) return format.fail("json_schema", "is missing");
    BodyReader named(*object, "response_format.json_schema");
    // vLLM also takes the schema itself under this name.
    const Json* schema = named.object(object->contains("json_schema") ? "json_schema" : "schema");
    if (named.failed()) return body_.fail(named.error());
    if (schema == nullptr) return set("response_format", {.kind = Kind::kJsonObject});
    set_schema("response_format", *schema);
  }

  void read_guided(BodyReader& fields, const std::string& prefix) {
    if (const Json* schema = fields.find(prefix + "json")) {
      const std::string name = fields.path_of(prefix + "json");
      if (schema->is_object()) {
        set_schema(name, *schema);
      } else if (schema->is_string()) {
        set_text(name, Kind::kJsonSchema, schema->get<std::string>());
      } else {
        fields.fail(prefix + "json", "must be a JSON schema, not " + kind_of(*schema));
      }
    }
    const std::vector<std::string> choices = fields.strings(prefix + "choice", text_max_, 4096);
    if (!choices.empty()) {
      set(fields.path_of(prefix + "choice"), {.kind = Kind::kChoice, .choices = choices});
    }
    const std::pair<const char*, Kind> texts[] = {{"regex", Kind::kRegex},
                                                  {"grammar", Kind::kGrammar}};
    for (const auto& [name, kind] : texts) {
      const std::string text = fields.string(prefix + name, text_max_, {});
      if (!text.empty()) set_text(fields.path_of(prefix + name), kind, text);
    }
  }

  void set_schema(const std::string& name, const Json& schema) {
    set_text(name, Kind::kJsonSchema, schema.dump());
  }

  void set_text(const std::string& name, Kind kind, std::string text) {
    if (text.size() > text_max_) {
      return body_.fail(ApiError{.message = name + " has " + std::to_string(text.size()) +
                                            " bytes, the limit is " + std::to_string(text_max_),
                                 .param = name});
    }
    set(name, {.kind = kind, .text = std::move(text)});
  }

  void set(const std::string& name, ResponseFormat format) {
    if (wanted_) {
      return body_.fail(ApiError{.message = wanted_->name + " and " + name +
                                            " both say what form the answer has: give one",
                                 .param = name});
    }
    wanted_ = WantedFormat{.name = name, .format = std::move(format)};
  }

  BodyReader& body_;
  const size_t text_max_;
  std::optional<WantedFormat> wanted_;
};

}  // namespace

std::optional<WantedFormat> read_wanted_format(BodyReader& body, const ModelContext& context) {
  return FormatReader(body, context).read();
}

ApiResult<std::shared_ptr<const request::TokenConstraint>> compile(const WantedFormat& wanted,
                                                                   const ModelContext& context) {
  if (!context.compile_format) {
    return ApiError{.message = wanted.name + " is not supported by this server",
                    .param = wanted.name,
                    .code = "unsupported_parameter"};
  }
  auto constraint = context.compile_format(wanted.format);
  if (!constraint.ok()) {
    return ApiError{.message = wanted.name + ": " + constraint.error().message,
                    .param = wanted.name};
  }
  return std::move(constraint).value();
}

}  // namespace nanocp::api
