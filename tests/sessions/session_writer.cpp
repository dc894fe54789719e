// session_writer capture FOLDER TOKENS   a new capture, or goes on with the newest unfinished one;
//                                        after an error one more try in the same process
// session_writer once FOLDER TOKENS      the same without another try
// session_writer hold FOLDER             opens for writing, prints "ready", ends with its input
// session_writer remove FOLDER           removes the newest capture
// session_writer copies FOLDER TOKENS    captures until it is killed

#include <cstdio>
#include <iostream>

#include "kernels/base/error.h"
#include "tests/sessions/synthetic.h"

namespace {

using namespace sparsight;
using namespace sparsight::sessions;

void say(const std::string& line) {
    std::cout << line << "\n" << std::flush;
}

std::shared_ptr<Session> openOrCreate(const std::filesystem::path& folder) {
    return isSession(folder) ? Session::open(folder, OpenMode::ReadWrite) : Session::create(folder);
}

/// Runs a step; with `again`, one failure is printed and the step tried once more.
template <class Step>
void attempt(bool again, const Step& step) {
    try {
        step();
    } catch (const Error& e) {
        if (!again) throw;
        say(std::string("failed: ") + e.what());
        step();
    }
}

void capture(Session& session, Index tokens, bool again) {
    std::string uuid;
    std::vector<Index> todo;
    const bool topKeys = tokens < 10000;  // more would fill the small disks of the tests with them
    const auto all = session.info().captures;
    if (!all.empty() && !all.back().complete()) {
        uuid = all.back().uuid;
        todo = session.resumeCapture(uuid);
    } else {
        attempt(again, [&] {
            uuid = session.beginCapture(test::smallRequest(tokens, kernels::DType::F32, topKeys));
        });
        for (Index l = 0; l < test::kLayers; ++l) todo.push_back(l);
    }
    say("capture " + uuid);
    for (const Index l : todo) {
        const auto layer = test::smallLayer(l, tokens, kernels::DType::F32, topKeys);
        attempt(again, [&] { session.addLayer(uuid, layer->capture, layer->stats); });
        say("stored " + std::to_string(l));
    }
    attempt(again, [&] { session.finishCapture(uuid, "complete"); });
    say("complete");
}

int run(int argc, char** argv) {
    const std::string mode = argc > 2 ? argv[1] : "";
    const std::filesystem::path folder = argc > 2 ? argv[2] : "";
    const Index tokens = argc > 3 ? std::stol(argv[3]) : 0;
    if (mode == "capture" || mode == "once") {
        capture(*openOrCreate(folder), tokens, mode == "capture");
    } else if (mode == "copies") {
        const auto session = openOrCreate(folder);
        for (;;) capture(*session, tokens, false);
    } else if (mode == "remove") {
        const auto session = Session::open(folder, OpenMode::ReadWrite);
        session->removeCapture(session->captureInfo().uuid);
        say("removed");
    } else if (mode == "hold") {
        const auto session = Session::open(folder, OpenMode::ReadWrite);
        say("ready");
        std::string line;
        std::getline(std::cin, line);
    } else {
        return 2;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (const auto status = runSessionHelper(argc, argv)) return *status;
    try {
        return run(argc, argv);
    } catch (const Error& e) {
        say(std::string("error: ") + e.what());
        return e.code() == Errc::Resources ? 6 : 3;
    }
}
