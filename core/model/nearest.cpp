#include "core/model/nearest.h"

#include <algorithm>
#include <numeric>

namespace sparsight {
namespace {

std::size_t editDistance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i + 1;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t replace = diagonal + (a[i] == b[j] ? 0 : 1);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replace, row[j + 1] + 1, row[j] + 1});
        }
    }
    return row.back();
}

}  // namespace

std::string nearestName(std::string_view typed, const std::vector<std::string>& names) {
    typed = typed.substr(0, 200);  // from a file: may be anything
    std::string best;
    std::size_t least = typed.size() / 2 + 1;
    for (const std::string& name : names) {
        const std::size_t d = editDistance(typed, name);
        if (d < least) {
            least = d;
            best = name;
        }
    }
    return best;
}

std::string supportedSentence(std::string_view typed, const std::vector<std::string>& names) {
    std::string out = "supported: ";
    for (std::size_t i = 0; i < names.size(); ++i) out += (i > 0 ? ", " : "") + names[i];
    const std::string near = nearestName(typed, names);
    if (!near.empty()) out += "; did you mean " + near + "?";
    return out;
}

}  // namespace sparsight
