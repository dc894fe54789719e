#include "tests/cli/cli.h"

#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cstdlib>

namespace cli_test {

Result sparsight(const std::string& args, const std::string& before) {
    static const Scratch scratch;
    const std::string out = scratch / "out", err = scratch / "err";
    const int raw = std::system(
        (before + " '" SPARSIGHT_CLI "' " + args + " >'" + out + "' 2>'" + err + "'").c_str());
    return {WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw), slurp(out), slurp(err)};
}

Result good(const std::string& args) {
    Result r = sparsight(args);
    INFO("sparsight " << args << "\n" << r.err);
    REQUIRE(r.status == 0);
    return r;
}

void fails(const std::string& args, int status, const std::string& words) {
    const Result r = sparsight(args);
    INFO("sparsight " << args << "\n" << r.out << r.err);
    CHECK(r.status == status);
    CHECK_THAT(r.err, Catch::Contains(words));
    CHECK(r.out.empty());
}

Result piped(const std::string& text, const std::string& args) {
    return sparsight(args, "printf '%s' '" + text + "' |");
}

std::string npyShape(const std::string& npy) {
    const auto from = npy.find('(');
    return from == std::string::npos ? std::string() : npy.substr(from, npy.find(')') + 1 - from);
}

std::size_t npyHeader(const std::string& npy) {
    return 10u + static_cast<unsigned char>(npy.at(8)) +
           256u * static_cast<unsigned char>(npy.at(9));
}

Json newestCapture(const std::string& session) {
    return good("session info --json " + session).json()["captures"].back();
}

const std::string& needleSession() {
    static const Scratch scratch;
    static const std::string session = [] {
        const std::string path = scratch / "needle.sparsight";
        good("capture bookworm --probe niah:tokens=700,depth=0.4,seed=3 --json -o " + path);
        return path;
    }();
    return session;
}

}  // namespace cli_test
