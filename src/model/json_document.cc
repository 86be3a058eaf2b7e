#include "model/json_document.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "model/printable.h"

namespace nanocp::model {
namespace {

using nlohmann::json;

class DocumentBuilder final : public json::json_sax_t {
 public:
  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(json::binary_t&) override { return fail("holds binary data"); }
  bool start_object(size_t) override { return open(json::object()); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (open_.back()->contains(name))
      return fail("gives the key \"" + printable(name) + "\" twice");
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t, const std::string&, const json::exception& error) override {
    return fail("is not valid JSON: " + describe_json_error(error));
  }

  json take_document() { return std::move(document_); }
  const std::string& failure() const { return failure_; }

 private:
  json* place(json value) {
    if (open_.empty()) {
      document_ = std::move(value);
      return &document_;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }

  bool add(json value) {
    place(std::move(value));
    return true;
  }
  bool open(json value) {
    if (open_.size() >= kJsonDepthMax) {
      return fail("nests deeper than " + std::to_string(kJsonDepthMax) + " levels");
    }
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  bool fail(std::string what) {
    if (failure_.empty()) failure_ = std::move(what);
    return false;
  }

  json document_;
  std::vector<json*> open_;  // containers being filled, outermost first
  std::string key_;
  std::string failure_;
};

}  // namespace

Result<json> parse_json(std::string_view text, const std::string& file_name) {
  DocumentBuilder builder;
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    return invalid_argument(file_name + " " + builder.failure());
  }
  return builder.take_document();
}

std::string describe_json_error(const json::exception& error) {
  // nlohmann prefixes "[json.exception.parse_error.101] "; the rest is the message for people.
  const std::string_view text = error.what();
  const size_t prefix_end = text.find("] ");
  return printable(prefix_end == std::string_view::npos ? text : text.substr(prefix_end + 2));
}

}  // namespace nanocp::model
