// The filters over lists. Functions without state.
#pragma once

#include <map>
#include <string_view>

#include "text/jinja/arguments.h"
#include "text/jinja/meter.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

using Filter = Value (*)(const Value&, const Arguments&, Meter&);

std::map<std::string_view, Filter> list_filters();

}  // namespace nanocp::text::jinja
