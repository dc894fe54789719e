#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Include {
    std::string file, target;
};

/// Every #include of the C++ and CUDA files below `folder`, paths relative to the source tree.
std::vector<Include> includesBelow(const std::string& folder) {
    static const std::regex pattern(R"rx(^\s*#\s*include\s*[<"]([^>"]+)[>"])rx");
    const fs::path root = SPARSIGHT_SOURCE_DIR;
    std::vector<Include> found;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
        const std::string ending = entry.path().extension().string();
        if (ending != ".h" && ending != ".cpp" && ending != ".cu" && ending != ".cuh") continue;
        std::ifstream in(entry.path());
        for (std::string line; std::getline(in, line);) {
            std::smatch match;
            if (std::regex_search(line, match, pattern))
                found.push_back({fs::relative(entry.path(), root).string(), match[1].str()});
        }
    }
    return found;
}

bool isQt(const std::string& target) {
    return std::regex_search(target, std::regex(R"(^(Qt[A-Z]\w*/|Q[A-Z]\w*$))"));
}
bool isTorch(const std::string& target) {
    return std::regex_search(target, std::regex(R"(^(torch|ATen|c10|caffe2)/)"));
}
bool below(const std::string& target, const std::string& folder) {
    return target.rfind(folder + "/", 0) == 0;
}

}  // namespace

TEST_CASE("the include patterns recognise Qt and LibTorch", "[layers]") {
    CHECK(isQt("QWidget"));
    CHECK(isQt("QtConcurrent/QtConcurrentRun"));
    CHECK_FALSE(isQt("core/model/config.h"));
    CHECK(isTorch("torch/torch.h"));
    CHECK(isTorch("ATen/ATen.h"));
    CHECK_FALSE(isTorch("core/torch/runner.h"));
}

TEST_CASE("core, kernels and sessions include no Qt", "[layers]") {
    for (const char* folder : {"core", "kernels", "sessions"}) {
        const auto includes = includesBelow(folder);
        REQUIRE(includes.size() > 10);
        for (const Include& i : includes) {
            CAPTURE(i.file, i.target);
            CHECK_FALSE(isQt(i.target));
        }
    }
}

TEST_CASE("LibTorch is included in core/torch only", "[layers]") {
    bool seen = false;
    for (const char* folder : {"app", "core", "kernels", "sessions", "ui", "tests"})
        for (const Include& i : includesBelow(folder)) {
            if (!isTorch(i.target)) continue;
            CAPTURE(i.file, i.target);
            CHECK(below(i.file, "core/torch"));
            seen = true;
        }
    CHECK(seen);
}

TEST_CASE("kernels <- core <- sessions <- ui <- app, and never back", "[layers]") {
    const std::vector<std::string> order = {"kernels", "core", "sessions", "ui", "app"};
    for (std::size_t layer = 0; layer < order.size(); ++layer)
        for (const Include& i : includesBelow(order[layer]))
            for (std::size_t above = layer + 1; above < order.size(); ++above) {
                CAPTURE(i.file, i.target);
                CHECK_FALSE(below(i.target, order[above]));
            }
}
