// A process that writes is killed, or told that the disk is full or broken, at every step of the
// write protocol; what it had acknowledged must be there afterwards.

#include <sys/mount.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <random>
#include <thread>

#include "kernels/base/error.h"
#include "tests/sessions/process.h"
#include "tests/sessions/synthetic.h"

using namespace sparsight;
using namespace sparsight::sessions;
using namespace sparsight::sessions::test;

namespace {

constexpr Index kTokens = 300;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// The helper of a killed writer may outlive it for a moment; it removes what it still made.
bool hasPartFiles(const fs::path& folder) {
    for (int tries = 0; tries < 100; ++tries) {
        bool found = false;
        for (const auto& e : fs::directory_iterator(folder / "tmp"))
            if (e.path().extension() == ".part") found = true;
        if (!found) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return true;
}

/// The invariant: opens, holds every acknowledged layer bit for bit and at most one more, no
/// scraps, every file sound.
void requireSound(const fs::path& folder, const std::vector<long>& acknowledged) {
    if (!isSession(folder)) {
        REQUIRE(acknowledged.empty());
        return;
    }
    {
        // First as a reader, who may change nothing, then as the writer, who cleans up.
        const auto reader = Session::open(folder, OpenMode::ReadOnly);
        for (const auto& c : reader->info().captures)
            for (const Index l : c.layersDone) REQUIRE(sameLayer(*reader, c.uuid, l, kTokens));
    }
    const auto session = Session::open(folder, OpenMode::ReadWrite);
    const auto captures = session->info().captures;
    std::vector<Index> done;
    if (!captures.empty()) done = captures.back().layersDone;
    for (const long l : acknowledged)
        REQUIRE(std::find(done.begin(), done.end(), Index(l)) != done.end());
    REQUIRE(done.size() <= acknowledged.size() + 1);
    for (const auto& c : captures)
        for (const Index l : c.layersDone) REQUIRE(sameLayer(*session, c.uuid, l, kTokens));
    REQUIRE(!hasPartFiles(folder));
    const auto report = checkSession(folder);
    for (const std::string& p : report.problems) UNSCOPED_INFO(p);
    REQUIRE(report.ok);
}

void requireResumes(const fs::path& folder) {
    Writer writer({"once", folder.string(), std::to_string(kTokens)});
    REQUIRE(writer.wait() == 0);
    const auto session = Session::open(folder, OpenMode::ReadOnly);
    const auto c = session->captureInfo();
    REQUIRE(c.complete());
    REQUIRE(c.layersDone.size() == std::size_t(kLayers));
    for (const Index l : c.layersDone) REQUIRE(sameLayer(*session, c.uuid, l, kTokens));
    REQUIRE(checkSession(folder).ok);
}

const char* const kPoints[] = {"S0", "S1", "S2",  "S3", "S4",  "S5",
                               "S6", "S7", "S7b", "S8", "S8b", "S9"};

}  // namespace

TEST_CASE("killed at every step of the write protocol") {
    for (const std::string point : kPoints)
        for (const int nth : {1, 2, 4}) {
            if (nth > 1 && (point == "S0" || point == "S9")) continue;
            const std::string fault = point + ":" + std::to_string(nth) + ":kill";
            INFO(fault);
            TempFolder temp;
            const fs::path folder = temp / "a.sparsight";
            Writer writer({"once", folder.string(), std::to_string(kTokens)}, fault);
            REQUIRE(writer.wait() == 1000 + SIGKILL);
            requireSound(folder, writer.acknowledged());
            requireResumes(folder);
        }
}

TEST_CASE("killed at random moments") {
    TempFolder temp;
    const auto start = std::chrono::steady_clock::now();
    {
        Writer whole({"once", (temp / "whole.sparsight").string(), std::to_string(kTokens)});
        REQUIRE(whole.wait() == 0);
    }
    const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - start);
    const char* asked = std::getenv("SPARSIGHT_TEST_KILLS");
    const int kills = asked ? std::atoi(asked) : 12;
    std::mt19937 random(20260131);
    int layers = 0;
    for (int i = 0; i < kills; ++i) {
        const fs::path folder = temp / ("k" + std::to_string(i) + ".sparsight");
        Writer writer({"once", folder.string(), std::to_string(kTokens)});
        std::this_thread::sleep_for(whole * double(random() % 1000) / 1000.0);
        writer.kill();
        INFO("kill " << i << ": " << writer.text());
        layers += int(writer.acknowledged().size());
        requireSound(folder, writer.acknowledged());
        requireResumes(folder);
    }
    WARN(kills << " kills, " << layers << " layers had been acknowledged, none was lost");
}

TEST_CASE("a full or broken disk at every step") {
    for (const std::string point : kPoints)
        for (const std::string action : {"enospc", "eio"})
            for (const int nth : {1, 2}) {
                if (nth > 1 && (point == "S0" || point == "S9")) continue;
                const std::string fault = point + ":" + std::to_string(nth) + ":" + action;
                INFO(fault);
                TempFolder temp;
                const fs::path folder = temp / "a.sparsight";
                {
                    // The same process goes on once the cause is gone.
                    Writer writer({"capture", folder.string(), std::to_string(kTokens)}, fault);
                    REQUIRE(writer.wait() == 0);
                    INFO(writer.text());
                    REQUIRE(contains(writer.text(), "failed: "));
                    if (action == "enospc") REQUIRE(contains(writer.text(), "the disk is full"));
                    REQUIRE(writer.acknowledged().size() == std::size_t(kLayers));
                    const auto session = Session::open(folder, OpenMode::ReadOnly);
                    REQUIRE(session->captureInfo().complete());
                    REQUIRE(!hasPartFiles(folder));
                    REQUIRE(checkSession(folder).ok);
                }
                if (nth > 1) continue;
                // And one that gave up has lost nothing.
                const fs::path other = temp / "b.sparsight";
                Writer writer({"once", other.string(), std::to_string(kTokens)}, fault);
                REQUIRE(writer.wait() == (action == "enospc" ? 6 : 3));
                requireSound(other, writer.acknowledged());
                requireResumes(other);
            }
}

TEST_CASE("killed while a capture is removed") {
    for (const std::string point : {"D1", "D2", "D3", "D4"}) {
        INFO(point);
        TempFolder temp;
        const fs::path folder = temp / "a.sparsight";
        std::string first;
        {
            const auto session = Session::create(folder);
            first = writeCapture(*session, kTokens, 1);
            writeCapture(*session, kTokens);
        }
        Writer writer({"remove", folder.string()}, point + ":kill");
        REQUIRE(writer.wait() == 1000 + SIGKILL);
        const auto session = Session::open(folder, OpenMode::ReadWrite);
        const bool gone = point == "D3" || point == "D4";
        REQUIRE(session->info().captures.size() == (gone ? 1 : 2));
        REQUIRE(session->info().warnings.empty());
        Index files = 0;
        for (const auto& e : fs::recursive_directory_iterator(folder / "seg"))
            files += e.is_regular_file();
        REQUIRE(files == (gone ? 4 : 4 + 16));
        REQUIRE(sameLayer(*session, first, 0, kTokens));
        REQUIRE(checkSession(folder).ok);
    }
}

TEST_CASE("killed while the catalogue is copied") {
    for (const std::string point : {"B1", "B2"}) {
        TempFolder temp;
        const fs::path folder = temp / "a.sparsight";
        Writer writer({"once", folder.string(), std::to_string(kTokens)}, point + ":kill");
        REQUIRE(writer.wait() == 1000 + SIGKILL);
        requireSound(folder, writer.acknowledged());
        requireResumes(folder);
    }
}

TEST_CASE("a layer that is complete but not entered is adopted, a stranger set aside") {
    TempFolder temp;
    const fs::path folder = temp / "a.sparsight";
    Writer writer({"once", folder.string(), std::to_string(kTokens)}, "S8:2:kill");
    REQUIRE(writer.wait() == 1000 + SIGKILL);
    const std::string stranger(32, 'b');
    fs::create_directories(folder / "seg/bb");
    fs::copy(folder / "README.txt", folder / "seg/bb" / (stranger + "-qkv.h5"));
    const auto session = Session::open(folder, OpenMode::ReadWrite);
    const auto info = session->info();
    REQUIRE(info.captures.size() == 1);
    CHECK(info.captures[0].layersDone == std::vector<Index>{0, 1});
    CHECK(info.captures[0].massError == Approx(2e-6));
    CHECK(sameLayer(*session, info.captures[0].uuid, 1, kTokens));
    std::string all;
    for (const auto& w : info.warnings) all += w + "\n";
    CHECK(contains(all, "layer 1 of capture"));
    CHECK(contains(all, "moved to tmp/"));
    CHECK(contains(all, "2 of 4 layers"));
    CHECK(fs::exists(folder / "tmp" / (stranger + "-qkv.h5")));
}

TEST_CASE("a disk that is really full") {
    TempFolder temp;
    const fs::path disk = temp / "disk";
    fs::create_directory(disk);
    // One layer of 20,000 tokens takes about 13.5 MB, four take 54.
    constexpr Index kMany = 20000;
    const auto mounted = [&](const char* options) {
        return ::mount("tmpfs", disk.c_str(), "tmpfs", 0, options) == 0;
    };
    if (::geteuid() != 0 || !mounted("size=24m")) {
        WARN("no small file system can be mounted here; the injected faults cover the rest");
        return;
    }
    struct Unmount {
        fs::path disk;
        ~Unmount() { ::umount2(disk.c_str(), MNT_DETACH); }
    } unmount{disk};
    const fs::path folder = disk / "a.sparsight";
    {
        Writer writer({"once", folder.string(), std::to_string(kMany)});
        CHECK(writer.wait() == 6);
        INFO(writer.text());
        CHECK(contains(writer.text(), "not enough space"));
        CHECK(contains(writer.text(), "are missing"));
        CHECK(writer.acknowledged() == std::vector<long>{0});
        const auto session = Session::open(folder, OpenMode::ReadWrite);
        const auto c = session->captureInfo();
        CHECK(c.layersDone == std::vector<Index>{0});
        CHECK(sameLayer(*session, c.uuid, 0, kMany));
        CHECK(!hasPartFiles(folder));
        session->setUiState("still", "{}");
    }
    REQUIRE(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=90m") == 0);
    Writer writer({"once", folder.string(), std::to_string(kMany)});
    CHECK(writer.wait() == 0);
    INFO(writer.text());
    CHECK(Session::open(folder, OpenMode::ReadOnly)->captureInfo().complete());
    CHECK(checkSession(folder).ok);
}

TEST_CASE("every size of a small disk gives a sentence and no damage") {
    TempFolder temp;
    const fs::path disk = temp / "disk";
    fs::create_directory(disk);
    if (::geteuid() != 0 || ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=64k") != 0) {
        WARN("no small file system can be mounted here");
        return;
    }
    struct Unmount {
        fs::path disk;
        ~Unmount() { ::umount2(disk.c_str(), MNT_DETACH); }
    } unmount{disk};
    const fs::path folder = disk / "a.sparsight";
    bool complete = false;
    for (int kib = 64; kib <= 6144 && !complete; kib += kib < 1024 ? 96 : 512) {
        INFO(kib << " KiB");
        const std::string size = "size=" + std::to_string(kib) + "k";
        REQUIRE(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, size.c_str()) == 0);
        Writer writer({"once", folder.string(), std::to_string(kTokens)});
        const int status = writer.wait();
        INFO(writer.text());
        REQUIRE((status == 0 || status == 6));
        complete = status == 0;
        if (isSession(folder)) {
            const auto session = Session::open(folder, OpenMode::ReadOnly);
            const auto captures = session->info().captures;
            for (const auto& c : captures)
                for (const Index l : c.layersDone) REQUIRE(sameLayer(*session, c.uuid, l, kTokens));
        }
    }
    REQUIRE(complete);
    REQUIRE(checkSession(folder).ok);
}
