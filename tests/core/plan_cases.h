#pragma once

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "core/plan/attention_plan.h"

/// Small models and plans that the tests of plans and of their exports share.
namespace plan_cases {

inline sparsight::ModelConfig config(sparsight::Index layers, sparsight::Index heads,
                                     sparsight::Index kvHeads) {
    sparsight::ModelConfig c;
    c.name = "toy-model-of-a-test";
    c.arch = "llama";
    c.layers = layers;
    c.heads = heads;
    c.kvHeads = kvHeads;
    c.headDim = 16;
    c.maxPositions = 4096;
    c.sha256 = std::string(64, 'a');
    return c;
}

inline sparsight::MethodSpec aShape(double sink, double window) {
    return {"a-shape", {{{"sink", sink}, {"window", window}}, {}}};
}

/// The method of every head in both phases, as text.
inline std::vector<std::string> tableOf(const sparsight::AttentionPlan& plan,
                                        std::vector<sparsight::Phase> phases = {
                                            sparsight::Phase::Prefill, sparsight::Phase::Decode}) {
    std::vector<std::string> rows;
    for (sparsight::Index l = 0; l < plan.model.layers; ++l)
        for (sparsight::Index h = 0; h < plan.model.heads; ++h)
            for (const auto phase : phases)
                rows.push_back(toString(sparsight::completed(plan.at(l, h, phase, 2048))));
    return rows;
}

/// A folder that goes away with the test.
struct Folder {
    std::filesystem::path path;
    Folder() {
        static int count = 0;
        path = std::filesystem::temp_directory_path() /
               ("sparsight-plan-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
        std::filesystem::create_directories(path);
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    std::filesystem::path write(const std::string& name, const std::string& text) const {
        std::ofstream(path / name, std::ios::binary) << text;
        return path / name;
    }
    std::string read(const std::string& name) const {
        std::ifstream in(path / name, std::ios::binary);
        std::stringstream text;
        text << in.rdbuf();
        return text.str();
    }
};

/// The message of the Error that `f` throws, after its code was checked.
template <class F>
std::string errorOf(sparsight::Errc code, F f) {
    try {
        f();
    } catch (const sparsight::Error& e) {
        CHECK(int(e.code()) == int(code));
        return e.what();
    }
    FAIL("no Error was thrown");
    return {};
}

}  // namespace plan_cases
