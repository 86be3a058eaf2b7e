// The alphabet of byte-level BPE: every byte has a printable character, so that vocabularies can be
// written as text (GPT-2, 2019; tokenizers' ByteLevel). Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nanocp::text {

// The character (UTF-8) that stands for `byte`.
const std::string& byte_character(uint8_t byte);

// The bytes that a vocabulary entry stands for, or nothing if a character is not of the alphabet.
std::optional<std::string> bytes_of_characters(std::string_view characters);

}  // namespace nanocp::text
