#include <map>

#include "text/jinja/characters.h"
#include "text/jinja/filters.h"
#include "text/jinja/methods.h"
#include "text/jinja/operations.h"

namespace nanocp::text::jinja {
namespace {

using Test = bool (*)(const Value&, const Arguments&, Meter&);

int64_t integer_of(const Value& value) {
  if (value.is_undefined()) fail(value.undefined_message());
  if (!value.is_integer()) fail("the test needs an integer");
  return value.integer();
}

bool is_multiple(int64_t value, int64_t divisor) {
  if (divisor == 0) fail("division by zero");
  return divisor == -1 || value % divisor == 0;
}

bool test_equal(const Value& value, const Arguments& arguments, Meter& meter) {
  return equals(value, arguments.required(0, "other"), meter);
}

int order(const Value& value, const Arguments& arguments, Meter& meter) {
  return compare(value, arguments.required(0, "other"), meter);
}

bool is_iterable(const Value& value) {
  return value.is_list() || value.is_dict() || value.is_string() || value.is_undefined();
}

// Python has no identity for our values; templates use it for none, true and false.
bool is_same(const Value& value, const Arguments& arguments, Meter& meter) {
  const Value& other = arguments.required(0, "other");
  return value.type_name() == other.type_name() && equals(value, other, meter);
}

const std::map<std::string_view, Test>& tests() {
  static const std::map<std::string_view, Test> kTests = {
      {"defined", [](const Value& v, const Arguments&, Meter&) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v, const Arguments&, Meter&) { return v.is_undefined(); }},
      {"none", [](const Value& v, const Arguments&, Meter&) { return v.is_none(); }},
      {"string", [](const Value& v, const Arguments&, Meter&) { return v.is_string(); }},
      {"number", [](const Value& v, const Arguments&, Meter&) { return v.is_number(); }},
      {"integer",
       [](const Value& v, const Arguments&, Meter&) { return v.is_integer() && !v.is_bool(); }},
      {"float", [](const Value& v, const Arguments&, Meter&) { return v.is_float(); }},
      {"boolean", [](const Value& v, const Arguments&, Meter&) { return v.is_bool(); }},
      {"true", [](const Value& v, const Arguments&, Meter&) { return v.is_bool() && v.boolean(); }},
      {"false",
       [](const Value& v, const Arguments&, Meter&) { return v.is_bool() && !v.boolean(); }},
      {"mapping", [](const Value& v, const Arguments&, Meter&) { return v.is_dict(); }},
      {"sequence", [](const Value& v, const Arguments&, Meter&) { return is_iterable(v); }},
      {"iterable", [](const Value& v, const Arguments&, Meter&) { return is_iterable(v); }},
      {"callable", [](const Value& v, const Arguments&, Meter&) { return v.is_callable(); }},
      {"eq", test_equal},
      {"equalto", test_equal},
      {"==", test_equal},
      {"ne", [](const Value& v, const Arguments& a, Meter& m) { return !test_equal(v, a, m); }},
      {"lt", [](const Value& v, const Arguments& a, Meter& m) { return order(v, a, m) < 0; }},
      {"lessthan", [](const Value& v, const Arguments& a, Meter& m) { return order(v, a, m) < 0; }},
      {"le", [](const Value& v, const Arguments& a, Meter& m) { return order(v, a, m) <= 0; }},
      {"gt", [](const Value& v, const Arguments& a, Meter& m) { return order(v, a, m) > 0; }},
      {"greaterthan",
       [](const Value& v, const Arguments& a, Meter& m) { return order(v, a, m) > 0; }},
      {"ge", [](const Value& v, const Arguments& a, Meter& m) { return order(v, a, m) >= 0; }},
      {"in", [](const Value& v, const Arguments& a,
                Meter& m) { return contains(a.required(0, "seq"), v, m); }},
      {"odd", [](const Value& v, const Arguments&, Meter&) { return integer_of(v) % 2 != 0; }},
      {"even", [](const Value& v, const Arguments&, Meter&) { return integer_of(v) % 2 == 0; }},
      {"divisibleby",
       [](const Value& v, const Arguments& a, Meter&) {
         return is_multiple(integer_of(v), integer_of(a.required(0, "num")));
       }},
      {"lower", [](const Value& v, const Arguments& a,
                   Meter& m) { return v.is_string() && call_method(v, "islower", a, m).truthy(); }},
      {"upper", [](const Value& v, const Arguments& a,
                   Meter& m) { return v.is_string() && call_method(v, "isupper", a, m).truthy(); }},
      {"sameas", is_same},
      {"filter", [](const Value& v, const Arguments&,
                    Meter&) { return v.is_string() && has_filter(v.string()); }},
      {"test", [](const Value& v, const Arguments&,
                  Meter&) { return v.is_string() && has_test(v.string()); }},
  };
  return kTests;
}

}  // namespace

bool has_test(std::string_view name) {
  return tests().contains(name);
}

bool apply_test(std::string_view name, const Value& value, const Arguments& arguments,
                Meter& meter) {
  return tests().at(name)(value, arguments, meter);
}

}  // namespace nanocp::text::jinja
