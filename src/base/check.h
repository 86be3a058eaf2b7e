// Checks for broken invariants (bugs), on in release builds. A failed check prints the expression,
// the compared values and the place, then aborts. Expected failures use Result (base/result.h).
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

namespace nanocp {

[[noreturn]] inline void check_failed(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what.c_str());
  std::fflush(stderr);
  std::abort();
}

template <typename A, typename B>
std::string describe_comparison(const char* text, const A& a, const B& b) {
  std::ostringstream out;
  out << text << " (" << a << " against " << b << ")";
  return out.str();
}

}  // namespace nanocp

#define NANOCP_CHECK(condition)                                               \
  do {                                                                        \
    if (!(condition)) ::nanocp::check_failed(__FILE__, __LINE__, #condition); \
  } while (0)

#define NANOCP_CHECK_OP(a, op, b)                                                \
  do {                                                                           \
    const auto& nanocp_a = (a);                                                  \
    const auto& nanocp_b = (b);                                                  \
    if (!(nanocp_a op nanocp_b))                                                 \
      ::nanocp::check_failed(                                                    \
          __FILE__, __LINE__,                                                    \
          ::nanocp::describe_comparison(#a " " #op " " #b, nanocp_a, nanocp_b)); \
  } while (0)

#define NANOCP_CHECK_EQ(a, b) NANOCP_CHECK_OP(a, ==, b)
#define NANOCP_CHECK_LE(a, b) NANOCP_CHECK_OP(a, <=, b)
#define NANOCP_CHECK_LT(a, b) NANOCP_CHECK_OP(a, <, b)
#define NANOCP_CHECK_GE(a, b) NANOCP_CHECK_OP(a, >=, b)

// For hot paths: compiled out where NDEBUG is set.
#ifdef NDEBUG
#define NANOCP_DCHECK(condition) static_cast<void>(sizeof((condition) ? 1 : 0))
#else
#define NANOCP_DCHECK(condition) NANOCP_CHECK(condition)
#endif
