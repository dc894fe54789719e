// Every validity rule of the file formats: tests/data/invalid has a file that breaks only it, and
// rules.json the sentence that must come of it.
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/model/config.h"
#include "core/model/json_input.h"
#include "core/model/safetensors.h"
#include "core/model/tokenizer.h"
#include "kernels/base/error.h"

using namespace sparsight;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

const fs::path kFolder = fs::path(SPARSIGHT_TEST_DATA) / "invalid";

const char* codeName(Errc code) {
    switch (code) {
        case Errc::Format:
            return "Format";
        case Errc::Unsupported:
            return "Unsupported";
        case Errc::NotFound:
            return "NotFound";
        default:
            return "another";
    }
}

/// Reads the file as the program would; config.json of a model is called after its test file.
void open(const std::string& name) {
    const fs::path path = kFolder / name;
    if (name.starts_with("safetensors/")) {
        SafeTensors::openFile(path);
    } else if (name.starts_with("index/")) {
        SafeTensors::openModel(path);
    } else if (name.starts_with("config/")) {
        parseConfig(readTextFile(path, 1 << 20), "test", path.string());
    } else {
        Tokenizer::load(path);
    }
}

/// "Format: sentence", where {} stands for the path of the test file; "opens".
std::string outcome(const std::string& name) {
    try {
        open(name);
    } catch (const Error& e) {
        std::string text = e.what();
        const std::string path = (kFolder / name).string();
        for (std::size_t at; (at = text.find(path)) != std::string::npos;)
            text.replace(at, path.size(), "{}");
        return std::string(codeName(e.code())) + ": " + text;
    }
    return "opens";
}

/// Names of all cases: a file each, of index/ a folder each.
std::set<std::string> cases() {
    std::set<std::string> all;
    for (const char* group : {"safetensors", "index", "config", "tokenizer"})
        for (const auto& entry : fs::directory_iterator(kFolder / group))
            all.insert(group + ("/" + entry.path().filename().string()));
    return all;
}

bool isValid(const std::string& name) {
    return name.substr(name.find('/') + 1).starts_with("valid");
}

}  // namespace

TEST_CASE("the files from which the broken ones are made open", "[rules]") {
    for (const std::string& name : cases()) {
        if (!isValid(name)) continue;
        CAPTURE(name);
        CHECK(outcome(name) == "opens");
    }
}

TEST_CASE("each validity rule, broken alone, is refused with its sentence", "[rules]") {
    std::ifstream in(kFolder / "rules.json");
    const json rules = json::parse(in);
    std::set<std::string> seen;
    for (const auto& [name, expected] : rules.items()) {
        seen.insert(name);
        CAPTURE(name);
        auto sentence = expected.get<std::string>();
        std::string found = outcome(name);
        if (sentence.ends_with('*')) {  // what follows is the JSON or regex library's own words
            sentence.pop_back();
            found.resize(std::min(found.size(), sentence.size()));
        }
        CHECK(found == sentence);
    }
    for (const std::string& name : cases())
        if (!isValid(name)) {
            CAPTURE(name);
            CHECK(seen.contains(name));
        }
}
