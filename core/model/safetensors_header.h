#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/safetensors.h"

namespace sparsight {

/// One entry of a header, checked: `begin` and `end` count from the start of the file's byte
/// buffer.
struct StEntry {
    std::string name;
    StDType dtype = StDType::Other;
    std::string dtypeName;
    std::vector<Index> shape;
    std::uint64_t begin = 0, end = 0;
};

struct StHeader {
    std::vector<StEntry> entries;  ///< by (begin, end)
    std::map<std::string, std::string> metadata;
};

/// Reads and checks the JSON header of a safetensors file by all rules of model-formats.md 1 that
/// concern it: spelling, types, duplicates, dense packing, sizes.
/// @param json         the header's bytes
/// @param bufferBytes  bytes in the file after the header; the tensors must fill them exactly
/// @param file         for messages
/// @throws Error(Format) naming file, tensor and rule
StHeader parseStHeader(std::string_view json, std::uint64_t bufferBytes, const std::string& file);

/// Spelling and width of a type.
struct StType {
    StDType dtype;
    const char* name;
    unsigned bits;
};
const StType* findStType(std::string_view name);  ///< nullptr when unknown
const StType* findStType(StDType dtype);          ///< nullptr for Other

}  // namespace sparsight
