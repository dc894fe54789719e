#include <algorithm>
#include <cstdlib>

#include "core/model/config.h"
#include "core/model/nearest.h"
#include "kernels/base/error.h"

namespace sparsight {

namespace fs = std::filesystem;

fs::path resourcesDirectory() {
    if (const char* set = std::getenv("SPARSIGHT_RESOURCES"); set != nullptr && *set != '\0') {
        if (fs::is_directory(set)) return set;
        throw Error(Errc::NotFound,
                    std::string("SPARSIGHT_RESOURCES names ") + set + ", which is not a directory");
    }
    std::error_code code;
    std::vector<fs::path> places;
    const fs::path program = fs::read_symlink("/proc/self/exe", code);
    if (!code) {
        places.push_back(program.parent_path() / "resources");
        places.push_back(program.parent_path().parent_path() / "share" / "sparsight");
    }
    places.emplace_back(SPARSIGHT_RESOURCE_DIR);  // of the source tree that was built
    std::string tried;
    for (const fs::path& place : places) {
        if (fs::is_directory(place / "models", code)) return place;
        tried += (tried.empty() ? "" : ", ") + place.string();
    }
    throw Error(Errc::NotFound,
                "the resources directory (bundled models and prompts) is in none of " + tried +
                    "; set SPARSIGHT_RESOURCES");
}

fs::path resolveModel(const std::string& nameOrPath) {
    if (nameOrPath.empty())
        throw Error(Errc::Usage, "no model given: a directory or a bundled model's name");
    std::error_code code;
    if (fs::exists(nameOrPath, code)) return nameOrPath;
    const fs::path models = resourcesDirectory() / "models";
    const bool plainName =
        nameOrPath.find('/') == std::string::npos && nameOrPath != "." && nameOrPath != "..";
    if (plainName && fs::is_directory(models / nameOrPath, code)) return models / nameOrPath;
    std::vector<std::string> bundled;
    for (const auto& entry : fs::directory_iterator(models, code))
        if (entry.is_directory(code)) bundled.push_back(entry.path().filename().string());
    std::sort(bundled.begin(), bundled.end());
    std::string list;
    for (const std::string& name : bundled) list += (list.empty() ? "" : ", ") + name;
    const std::string near = nearestName(nameOrPath, bundled);
    throw Error(Errc::NotFound, "no model \"" + nameOrPath +
                                    "\": neither a directory nor a bundled model (bundled: " +
                                    (list.empty() ? "none" : list) +
                                    (near.empty() ? "" : "; did you mean " + near + "?") + ")");
}

}  // namespace sparsight
