// The page is one whole file that loads nothing.
#include "server/live_page.h"

#include <gtest/gtest.h>

#include <regex>

namespace nanocp::server {
namespace {

TEST(LivePage, IsOneFileThatLoadsNothing) {
  std::string page = live_page();
  EXPECT_EQ(page.rfind("<!DOCTYPE html>", 0), 0U);
  EXPECT_EQ(page.find("{{"), std::string::npos) << "something was not filled in";
  page = std::regex_replace(page, std::regex("http://www.w3.org/2000/svg"), "");
  EXPECT_EQ(page.find("http:"), std::string::npos);
  EXPECT_EQ(page.find("https:"), std::string::npos);
  EXPECT_EQ(page.find(" src="), std::string::npos);
  EXPECT_EQ(page.find("@import"), std::string::npos);
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
}

TEST(LivePage, TextIsNeverTakenForMarkup) {
  const std::string page = live_page();
  for (const char* word : {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
                           "eval(", "new Function", "onclick="}) {
    EXPECT_EQ(page.find(word), std::string::npos) << word;
  }
}

TEST(LivePage, HasOneEndOfScript) {
  const std::string page = live_page();
  const size_t first = page.find("</script>");
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(page.find("</script>", first + 1), std::string::npos);
}

}  // namespace
}  // namespace nanocp::server
