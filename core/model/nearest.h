#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sparsight {

/// The name that needs the fewest insertions, deletions and replacements to become `typed`; empty
/// when none is close (more than half of the letters differ).
std::string nearestName(std::string_view typed, const std::vector<std::string>& names);

/// "supported: a, b, c", with "; did you mean a?" when one is close.
std::string supportedSentence(std::string_view typed, const std::vector<std::string>& names);

}  // namespace sparsight
