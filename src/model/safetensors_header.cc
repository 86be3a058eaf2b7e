#include "model/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "model/json_document.h"
#include "model/printable.h"

namespace nanocp::model {
namespace {

using nlohmann::json;

// A reader of events instead of a document: a header of 100 MB never becomes a tree, and nesting
// is bounded by the form itself.
class HeaderReader final : public json::json_sax_t {
 public:
  bool null() override { return reject_value("null"); }
  bool boolean(bool) override { return reject_value("true or false"); }
  bool number_integer(int64_t value) override {
    return reject_value("the negative number " + std::to_string(value));
  }
  bool number_float(double, const std::string& text) override {
    return reject_value("the number " + printable(text, 40));
  }
  bool binary(json::binary_t&) override { return reject_value("binary data"); }

  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::kList) return reject_value("the number " + std::to_string(value));
    if (field_ == Field::kShape) return add_dim(value);
    if (num_offsets_ == 2) return fail_tensor("has more than two data_offsets");
    (num_offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != Field::kType) {
      return reject_value("the text \"" + printable(value, 40) + "\"");
    }
    const auto type = stored_type_from_name(value);
    if (!type) return fail_tensor("has the unknown dtype \"" + printable(value, 40) + "\"");
    tensor_.type = *type;
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) return enter(Place::kRoot);
    if (place_ != Place::kRoot) return reject_value("an object");
    if (tensor_.name == "__metadata__") return enter(Place::kMetadata);
    seen_ = 0;
    num_offsets_ = 0;
    return enter(Place::kTensor);
  }

  bool key(std::string& name) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ == Place::kRoot) {
      tensor_ = TensorEntry();
      tensor_.name = std::move(name);
      return true;
    }
    field_ = name == "dtype"          ? Field::kType
             : name == "shape"        ? Field::kShape
             : name == "data_offsets" ? Field::kOffsets
                                      : Field::kUnknown;
    if (field_ == Field::kUnknown) {
      return fail_tensor("has the unknown field \"" + printable(name, 40) + "\"");
    }
    const int bit = 1 << static_cast<int>(field_);
    if ((seen_ & bit) != 0) return fail_tensor("gives " + name + " twice");
    seen_ |= bit;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (seen_ != kAllFields) return fail_tensor("lacks dtype, shape or data_offsets");
      if (num_offsets_ != 2) return fail_tensor("has fewer than two data_offsets");
      tensors_.push_back(std::move(tensor_));
    }
    return enter(place_ == Place::kRoot ? Place::kEnd : Place::kRoot);
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || field_ == Field::kType) return reject_value("a list");
    return enter(Place::kList);
  }
  bool end_array() override { return enter(Place::kTensor); }

  bool parse_error(size_t, const std::string&, const json::exception& error) override {
    return fail("header is not valid JSON: " + describe_json_error(error));
  }

  std::vector<TensorEntry> take_tensors() { return std::move(tensors_); }
  const std::string& failure() const { return failure_; }

 private:
  enum class Place { kStart, kRoot, kMetadata, kTensor, kList, kEnd };
  enum class Field { kType, kShape, kOffsets, kUnknown };
  static constexpr int kAllFields = 7;

  bool enter(Place place) {
    place_ = place;
    return true;
  }
  bool add_dim(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return fail_tensor("has the dimension " + std::to_string(value) + ", which is too large");
    }
    if (tensor_.shape.size() == kTensorRankMax) {
      return fail_tensor("has more than " + std::to_string(kTensorRankMax) + " dimensions");
    }
    tensor_.shape.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool reject_value(const std::string& what) {
    if (place_ == Place::kStart) return fail("header is " + what + " instead of an object");
    if (place_ == Place::kMetadata) return fail("header has " + what + " in __metadata__");
    return fail_tensor("has " + what + " where dtype, shape or data_offsets should be");
  }
  bool fail_tensor(const std::string& what) {
    return fail("tensor \"" + printable(tensor_.name) + "\" " + what);
  }
  bool fail(std::string what) {
    if (failure_.empty()) failure_ = std::move(what);
    return false;
  }

  Place place_ = Place::kStart;
  Field field_ = Field::kUnknown;
  TensorEntry tensor_;  // the one being read
  int seen_ = 0;        // bit per Field
  int num_offsets_ = 0;
  std::vector<TensorEntry> tensors_;
  std::string failure_;
};

}  // namespace

Result<std::vector<TensorEntry>> parse_safetensors_header(std::string_view header,
                                                          const std::string& file_name) {
  HeaderReader reader;
  if (!json::sax_parse(header.begin(), header.end(), &reader)) {
    return invalid_argument(file_name + ": " + reader.failure());
  }
  return reader.take_tensors();
}

}  // namespace nanocp::model
