# Makes a C++ source of a text file: cmake -DINPUT=FILE -DOUTPUT=FILE -DNAME=namespace::kName -P ...
# The text becomes a std::string_view, which the user of it declares.
file(READ ${INPUT} bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "([^\n]{100})" "\\1\n" bytes "${bytes}")
string(REGEX MATCH "^(.*)::([^:]+)$" matched "${NAME}")
file(WRITE ${OUTPUT} "#include <string_view>
namespace ${CMAKE_MATCH_1} {
namespace {
constexpr unsigned char kBytes[] = {
${bytes}};
}  // namespace
extern const std::string_view ${CMAKE_MATCH_2};
const std::string_view ${CMAKE_MATCH_2}(reinterpret_cast<const char*>(kBytes), sizeof(kBytes));
}  // namespace ${CMAKE_MATCH_1}
")
