#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/files.h"

/// The program under test, run as a user runs it, and what its tests share.
namespace cli_test {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Result {
    int status = -1;
    std::string out, err;
    Json json() const { return Json::parse(out); }
};

using test_files::slurp;
using test_files::spill;

/// A folder of this test run, whose files are named as text.
struct Scratch : test_files::TempFolder {
    std::string operator/(const std::string& name) const { return (path / name).string(); }
};

/// Runs `BEFORE sparsight ARGS` through the shell.
Result sparsight(const std::string& args, const std::string& before = {});
/// A command that has to succeed.
Result good(const std::string& args);
/// A failing command: the status, and one sentence that contains `words`.
void fails(const std::string& args, int status, const std::string& words);
/// Writes all of `text` into a pipe before the program: `printf ... | sparsight`.
Result piped(const std::string& text, const std::string& args);

/// The shape that a .npy file states, e.g. "(700, 700)", and its number of bytes before the data.
std::string npyShape(const std::string& npy);
std::size_t npyHeader(const std::string& npy);

Json newestCapture(const std::string& session);
/// One capture of a short needle prompt, shared by the tests.
const std::string& needleSession();

}  // namespace cli_test
