#include <sqlite3.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <thread>

#include "kernels/base/error.h"
#include "sessions/crc32c.h"
#include "sessions/segment.h"
#include "tests/sessions/process.h"
#include "tests/sessions/synthetic.h"

using namespace sparsight;
using namespace sparsight::sessions;
using namespace sparsight::sessions::test;

namespace {

/// The error that a call throws; fails the test when it throws none.
template <class Call>
Error errorOf(const Call& call) {
    try {
        call();
    } catch (const Error& e) {
        return e;
    }
    FAIL("no error was thrown");
    return {Errc::Io, ""};
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

Index filesBelow(const fs::path& folder) {
    Index n = 0;
    for (const auto& e : fs::recursive_directory_iterator(folder)) n += e.is_regular_file();
    return n;
}

/// A model without weights: every layer's q, k and v follow from the layer's number.
class FakeModel final : public ModelRunner {
public:
    const ModelConfig& config() const override { return m_config; }
    void forward(std::span<const std::int32_t> ids, KvCache&, const AttentionFn& attention,
                 const Job& job, Index lastLayer) override {
        const auto tokens = Index(ids.size());
        const Index end = lastLayer < 0 ? m_config.layers : lastLayer + 1;
        for (Index l = 0; l < end; ++l) {
            job.check();
            ++forwards;
            const auto layer = smallLayer(l, tokens);
            std::vector<float> o(std::size_t(kHeads * tokens * kWidth));
            LayerCall call;
            call.layer = l;
            call.problem = layer->capture.problem;
            call.q = layer->capture.q;
            call.k = layer->capture.k;
            call.v = layer->capture.v;
            call.o = {o.data(), kernels::DType::F32, 0, tokens * kWidth, kWidth};
            attention(call);
        }
    }
    void logits(Index, Index, float*) override {}
    int threads() const override { return 1; }
    int forwards = 0;

private:
    ModelConfig m_config = smallModel();
};

}  // namespace

TEST_CASE("CRC-32C is Castagnoli's") {
    const std::string digits = "123456789";
    CHECK(crc32c(std::as_bytes(std::span(digits))) == 0xe3069283u);
    // In two parts, at a place that is no multiple of eight.
    const auto bytes = std::as_bytes(std::span(digits));
    CHECK(crc32c(bytes.subspan(5), crc32c(bytes.first(5))) == 0xe3069283u);
}

TEST_CASE("what goes in comes out, bit for bit, in every stored type") {
    for (const auto type : {kernels::DType::F32, kernels::DType::F16, kernels::DType::BF16}) {
        // 1 token, less than a block, just over two blocks, more than one 4 MiB piece.
        for (const Index tokens : {Index(1), Index(50), Index(130), Index(9000)}) {
            if (tokens > 1000 && type != kernels::DType::F32) continue;
            INFO(nameOf(type) << ", " << tokens << " tokens");
            TempFolder temp;
            std::string uuid;
            {
                const auto session = Session::create(temp / "a.sparsight");
                uuid = writeCapture(*session, tokens, kLayers, type);
                CHECK(sameLayer(*session, uuid, 2, tokens, type));
            }
            const auto session = Session::open(temp / "a.sparsight", OpenMode::ReadOnly);
            const auto info = session->captureInfo();
            CHECK(info.uuid == uuid);
            CHECK(info.complete());
            CHECK(info.layersDone == std::vector<Index>{0, 1, 2, 3});
            CHECK(info.store == type);
            CHECK(info.massError == Approx(4e-6));
            for (Index l = 0; l < kLayers; ++l) CHECK(sameLayer(*session, uuid, l, tokens, type));
            CHECK(checkSession(temp / "a.sparsight").problems.empty());
            CHECK(session->info().warnings.empty());
        }
    }
}

TEST_CASE("top keys: any rows of any head come out as they went in, and only when asked for") {
    TempFolder temp;
    // Less than k rows; more than one chunk of 1024 rows.
    for (const Index tokens : {Index(40), Index(1500)}) {
        INFO(tokens << " tokens");
        const fs::path folder = temp / (std::to_string(tokens) + ".sparsight");
        std::string with, without;
        {
            const auto session = Session::create(folder);
            without = writeCapture(*session, tokens);
            with = session->beginCapture(smallRequest(tokens, kernels::DType::F32, true));
            const auto plain = smallLayer(0, tokens);
            CHECK(contains(
                errorOf([&] { session->addLayer(with, plain->capture, plain->stats); }).what(),
                "it has the 0 largest probabilities of each row where the capture "
                "keeps 64"));
            for (Index l = 0; l < kLayers; ++l) {
                const auto layer = smallLayer(l, tokens, kernels::DType::F32, true);
                session->addLayer(with, layer->capture, layer->stats);
            }
            session->finishCapture(with, "complete");
        }
        const auto session = Session::open(folder, OpenMode::ReadOnly);
        CHECK(session->captureInfo(with).topKeys);
        CHECK(!session->captureInfo(without).topKeys);
        CHECK(session->captureInfo(with).bytes - session->captureInfo(without).bytes >=
              kLayers * kHeads * tokens * kTopKeys * 8);
        for (Index l = 0; l < kLayers; ++l) {
            const auto made = smallLayer(l, tokens, kernels::DType::F32, true);
            CHECK(sameLayer(*session, with, l, tokens));
            CHECK(session->stats(with, l)->top.k == 0);
            for (const TokenSpan rows :
                 {TokenSpan{0, tokens}, {0, 1}, {tokens - 1, tokens}, {tokens / 3, tokens / 2}})
                for (Index h = 0; h < kHeads; ++h) {
                    const TopKeys top = session->topKeys(with, l, h, rows);
                    REQUIRE(top.k == kTopKeys);
                    REQUIRE(top.rows() == rows.size());
                    const Index from = (h * tokens + rows.begin) * kTopKeys;
                    CHECK(std::equal(top.key.begin(), top.key.end(),
                                     made->stats.top.key.begin() + from));
                    CHECK(std::equal(top.p.begin(), top.p.end(), made->stats.top.p.begin() + from));
                }
        }
        CHECK(contains(errorOf([&] {
                           session->topKeys(without, 0, 0, {0, 1});
                       }).what(),
                       "does not keep the largest probabilities of each row"));
        for (const auto& [head, rows] :
             {std::pair(kHeads, TokenSpan{0, 1}), std::pair(Index(0), TokenSpan{0, tokens + 1}),
              std::pair(Index(0), TokenSpan{3, 3})})
            CHECK(errorOf([&, h = head, r = rows] { session->topKeys(with, 0, h, r); }).code() ==
                  Errc::NotFound);
        CHECK(checkSession(folder).problems.empty());
    }
}

TEST_CASE("top keys of a damaged segment are not used") {
    TempFolder temp;
    const fs::path folder = temp / "a.sparsight";
    std::string uuid;
    {
        const auto session = Session::create(folder);
        uuid = session->beginCapture(smallRequest(50, kernels::DType::F32, true));
        for (Index l = 0; l < kLayers; ++l) {
            const auto layer = smallLayer(l, 50, kernels::DType::F32, true);
            session->addLayer(uuid, layer->capture, layer->stats);
        }
        session->finishCapture(uuid, "complete");
    }
    Index spoilt = 0;
    for (const auto& e : fs::recursive_directory_iterator(folder / "seg")) {
        if (!e.is_regular_file() || !contains(e.path().filename().string(), "pyr.h5")) continue;
        std::fstream file(e.path(), std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(std::streamoff(fs::file_size(e.path()) / 2));
        const char byte = 77;
        file.write(&byte, 1);
        ++spoilt;
    }
    REQUIRE(spoilt == kLayers);
    const auto session = Session::open(folder, OpenMode::ReadOnly);
    CHECK(contains(errorOf([&] {
                       session->topKeys(uuid, 1, 0, {0, 1});
                   }).what(),
                   "do not match their checksum"));
}

TEST_CASE("a resume keeps the choice of top keys") {
    TempFolder temp;
    const auto session = Session::create(temp / "a.sparsight");
    const auto backend = kernels::makeReference();
    FakeModel model;
    for (const bool topKeys : {true, false}) {
        CaptureRequest request = smallRequest(70, kernels::DType::F32, topKeys);
        bool stop = false;
        const Job half([&](double fraction, std::string_view) { stop = fraction > 0.5; },
                       [&] { return stop; });
        CHECK_THROWS_AS(captureToSession(*session, model, *backend, request, {}, half), Cancelled);
        const auto partial = session->captureInfo();
        CHECK(partial.topKeys == topKeys);
        CHECK(partial.layersDone.size() < std::size_t(kLayers));
        CaptureRequest other = request;
        other.options.topKeys = !topKeys;
        CHECK(contains(errorOf([&] {
                           captureToSession(*session, model, *backend, other, partial.uuid);
                       }).what(),
                       "was begun with another choice of top keys"));
        captureToSession(*session, model, *backend, request, partial.uuid);
        const auto done = session->captureInfo();
        CHECK(done.complete());
        if (!topKeys) continue;
        // What was stored is what the rows' own probabilities say.
        for (const Index l : {Index(0), kLayers - 1}) {
            const auto layer = session->layer(done.uuid, l);
            for (const Index row : {0, 33, 69}) {
                const TopKeys a = session->topKeys(done.uuid, l, 1, {row, row + 1}),
                              b = rowTopKeys(headProblem(*layer, 1), headQ(*layer, 1),
                                             headK(*layer, 1), row, kTopKeys);
                CHECK(a.key == b.key);
                for (std::size_t i = 0; i < a.p.size(); ++i)
                    CHECK(a.p[i] == Approx(b.p[i]).margin(1e-6));
            }
        }
    }
}

TEST_CASE("a capture keeps its prompt, model and needle") {
    TempFolder temp;
    CaptureRequest request = smallRequest(20);
    request.promptText = "na\xc3\xafve \xe2\x86\x92 text";
    request.generator = "niah:tokens=20";
    request.truth =
        NeedleTruth{{3, 6}, {18, 20}, 10, "the pass key is 41857", " 41857", "niah:tokens=20"};
    request.options.layers = {3, 1};
    const auto session = Session::create(temp / "a.sparsight");
    session->beginCapture(request);
    const auto c = session->captureInfo();
    CHECK(c.state == "open");
    CHECK(c.promptText == request.promptText);
    CHECK(c.tokenIds == request.tokenIds);
    REQUIRE(c.offsets.size() == 20);
    CHECK(c.offsets[7].byteEnd == 8);
    CHECK(c.layersAsked == std::vector<Index>{1, 3});
    CHECK(c.config.sha256 == request.config.sha256);
    CHECK(c.config.headDim == kWidth);
    CHECK(c.modelHint == "/nowhere/small");
    REQUIRE(c.truth);
    CHECK(c.truth->needle.begin == 3);
    CHECK(c.truth->answer.end == 20);
    CHECK(c.truth->answerText == " 41857");
    CHECK(c.generator == "niah:tokens=20");
}

TEST_CASE("strided views are stored as if they were not") {
    TempFolder temp;
    const Index tokens = 70;
    const auto session = Session::create(temp / "a.sparsight");
    const std::string uuid = session->beginCapture(smallRequest(tokens));
    const auto layer = smallLayer(0, tokens);
    // [token, head, width] instead of [head, token, width].
    std::vector<float> turned(std::size_t(kHeads * tokens * kWidth));
    const auto* q = reinterpret_cast<const float*>(layer->q.data());
    for (Index h = 0; h < kHeads; ++h)
        for (Index n = 0; n < tokens; ++n)
            for (Index d = 0; d < kWidth; ++d)
                turned[std::size_t((n * kHeads + h) * kWidth + d)] =
                    q[(h * tokens + n) * kWidth + d];
    LayerCapture capture = layer->capture;
    capture.q = {turned.data(), kernels::DType::F32, 0, kWidth, kHeads * kWidth};
    session->addLayer(uuid, capture, layer->stats);
    CHECK(sameLayer(*session, uuid, 0, tokens));
}

TEST_CASE("a partial capture is valid and can be resumed") {
    TempFolder temp;
    const Index tokens = 130;
    std::string uuid;
    {
        const auto session = Session::create(temp / "a.sparsight");
        uuid = writeCapture(*session, tokens, 2);
    }
    const auto session = Session::open(temp / "a.sparsight", OpenMode::ReadWrite);
    CHECK(session->captureInfo().state == "cancelled");
    CHECK(session->captureInfo().layersDone == std::vector<Index>{0, 1});
    CHECK(errorOf([&] { session->layer(uuid, 2); }).code() == Errc::NotFound);
    const auto layer = smallLayer(2, tokens);
    CHECK(errorOf([&] { session->addLayer(uuid, layer->capture, layer->stats); }).code() ==
          Errc::Usage);
    CHECK(session->resumeCapture(uuid) == std::vector<Index>{2, 3});
    session->addLayer(uuid, layer->capture, layer->stats);
    CHECK(errorOf([&] { session->addLayer(uuid, layer->capture, layer->stats); }).code() ==
          Errc::Usage);
    CHECK(errorOf([&] { session->finishCapture(uuid, "complete"); }).code() == Errc::Usage);
    const auto last = smallLayer(3, tokens);
    session->addLayer(uuid, last->capture, last->stats);
    session->finishCapture(uuid, "complete");
    CHECK(session->captureInfo().complete());
    CHECK(errorOf([&] { session->resumeCapture(uuid); }).code() == Errc::Usage);
}

TEST_CASE("a capture runs into a session, stops and goes on") {
    TempFolder temp;
    const auto backend = kernels::makeReference();
    FakeModel model;
    const auto session = Session::create(temp / "a.sparsight");
    CaptureRequest request = smallRequest(90);

    bool stop = false;
    const Job job([&](double fraction, std::string_view) { stop = fraction > 0.5; },
                  [&] { return stop; });
    CHECK_THROWS_AS(captureToSession(*session, model, *backend, request, {}, job), Cancelled);
    const auto partial = session->captureInfo();
    CHECK(partial.state == "cancelled");
    CHECK(!partial.layersDone.empty());
    CHECK(partial.layersDone.size() < std::size_t(kLayers));

    CaptureRequest other = request;
    other.tokenIds[0] = 5;
    CHECK(errorOf([&] {
              captureToSession(*session, model, *backend, other, partial.uuid);
          }).code() == Errc::Usage);
    CHECK(captureToSession(*session, model, *backend, request, partial.uuid) == partial.uuid);
    const auto done = session->captureInfo();
    CHECK(done.complete());
    CHECK(done.massError < 1e-5);
    // The same numbers as one that was never stopped.
    const std::string whole = captureToSession(*session, model, *backend, request);
    for (Index l = 0; l < kLayers; ++l)
        CHECK(session->stats(done.uuid, l)->colMass == session->stats(whole, l)->colMass);
    CHECK(checkSession(temp / "a.sparsight").ok);
}

TEST_CASE("facts, metrics, plans and view state survive") {
    TempFolder temp;
    std::string uuid;
    AttentionPlan plan =
        uniformPlan(planModel(smallModel()), parseMethod("a-shape:sink=4,window=32"));
    plan.name = "a plan";
    if (plan.uuid.empty()) plan.uuid = randomUuid();
    {
        const auto session = Session::create(temp / "a.sparsight");
        uuid = writeCapture(*session, 64);
        CHECK(session->headFacts(uuid).empty());
        std::vector<HeadFacts> facts;
        for (Index l = 0; l < kLayers; ++l)
            for (Index h = 0; h < kHeads; ++h) {
                HeadFacts f;
                f.layer = l;
                f.head = h;
                f.kvHead = h / 2;
                f.sinkMass = 0.1 * double(h) + 1e-17;
                f.entropy = 1.0 / 3.0;
                if (l != 2) f.retrieval = h == 1 ? 0.7 : 0.0;
                f.streamingRecall = h == 2 ? 0.99 : 0.5;
                f.label = h == 1 && l != 2 ? "retrieval" : h == 2 ? "streaming" : "mixed";
                facts.push_back(f);
            }
        session->saveHeadFacts(uuid, facts);
        session->saveHeadFacts(uuid, facts);  // twice changes nothing
        MaskMetrics m;
        m.layer = 1;
        m.head = 2;
        m.recall = 0.5;
        session->saveMaskMetrics(uuid, parseMethod("a-shape:sink=4"), {m});
        m.recall = 0.75;
        session->saveMaskMetrics(uuid, parseMethod("a-shape:sink=4"), {m});
        session->savePlan(uuid, plan);
        session->savePlan(uuid, plan);
        session->setUiState("window", R"({"head": 3})");
    }
    const auto session = Session::open(temp / "a.sparsight", OpenMode::ReadOnly);
    const auto facts = session->headFacts(uuid);
    REQUIRE(facts.size() == std::size_t(kLayers * kHeads));
    CHECK(facts[3].sinkMass == 0.1 * 3.0 + 1e-17);
    CHECK(facts[5].entropy == 1.0 / 3.0);
    CHECK(facts[5].label == "retrieval");
    CHECK(facts[5].kvHead == 0);
    CHECK(!facts[9].retrieval);
    CHECK(facts[9].label == "mixed");
    CHECK(facts[10].label == "streaming");
    const auto plans = session->plans();
    REQUIRE(plans.size() == 1);
    CHECK(canonicalJson(plans[0]) == canonicalJson(plan));
    CHECK(session->uiState("window") == R"({"head": 3})");
    CHECK(!session->uiState("other"));
    CHECK(errorOf([&] { session->setUiState("window", "{}"); }).code() == Errc::Usage);
    CHECK(errorOf([&] { session->beginCapture(smallRequest(3)); }).code() == Errc::Usage);
}

TEST_CASE("removing a capture removes its files and nothing else") {
    TempFolder temp;
    const auto session = Session::create(temp / "a.sparsight");
    const std::string first = writeCapture(*session, 64);
    const Index files = filesBelow(temp / "a.sparsight/seg");
    const std::string second = writeCapture(*session, 64);
    CHECK(filesBelow(temp / "a.sparsight/seg") == 2 * files);
    const auto mapped = session->layer(first, 0);
    session->removeCapture(first);
    CHECK(filesBelow(temp / "a.sparsight/seg") == files);
    CHECK(mapped->lse(0, 0) == smallLayer(0, 64)->lse[0]);  // who looks at it still may
    CHECK(errorOf([&] { session->captureInfo(first); }).code() == Errc::NotFound);
    CHECK(sameLayer(*session, second, 3, 64));
    session->removeCapture(second);
    CHECK(filesBelow(temp / "a.sparsight/seg") == 0);
    CHECK(errorOf([&] { session->captureInfo(); }).code() == Errc::NotFound);
}

TEST_CASE("one writer, many readers, and the second writer hears who it is") {
    TempFolder temp;
    const fs::path folder = temp / "a.sparsight";
    std::string uuid;
    {
        const auto session = Session::create(folder);
        uuid = writeCapture(*session, 64);
        // The same process gets the session that it has.
        CHECK(Session::open(folder, OpenMode::ReadWrite) == session);
    }
    Writer holder({"hold", folder.string()});
    REQUIRE(holder.waitFor("ready"));
    const Error e = errorOf([&] { Session::open(folder, OpenMode::ReadWrite); });
    CHECK(e.code() == Errc::Resources);
    CHECK(contains(e.what(), "process "));
    CHECK(contains(e.what(), "since 20"));
    const auto reader = Session::open(folder, OpenMode::ReadOnly);
    CHECK(contains(reader->info().lockHolder, "process "));
    CHECK(sameLayer(*reader, uuid, 1, 64));
    holder.say("\n");
    CHECK(holder.wait() == 0);
    CHECK(reader->info().lockHolder.empty());
    CHECK(Session::open(folder, OpenMode::ReadWrite)->info().writable);
}

TEST_CASE("a reader sees whole layers while another process writes") {
    TempFolder temp;
    const fs::path folder = temp / "a.sparsight";
    Session::create(folder).reset();
    Writer writer({"copies", folder.string(), "200"});
    REQUIRE(writer.waitFor("stored 0"));
    const auto reader = Session::open(folder, OpenMode::ReadOnly);
    std::size_t most = 0;
    for (int round = 0; round < 40; ++round) {
        const auto c = reader->captureInfo();
        for (const Index l : c.layersDone) CHECK(sameLayer(*reader, c.uuid, l, 200));
        most = std::max(most, reader->info().captures.size());
    }
    CHECK(most >= 1);
    writer.kill();
}

TEST_CASE("threads share one session") {
    TempFolder temp;
    const auto session = Session::create(temp / "a.sparsight");
    const std::string uuid = session->beginCapture(smallRequest(200));
    std::atomic<bool> stop{false};
    std::atomic<int> good{0}, bad{0};
    std::thread reader([&] {
        while (!stop)
            for (const Index l : session->captureInfo(uuid).layersDone)
                ++(sameLayer(*session, uuid, l, 200) ? good : bad);
    });
    for (Index l = 0; l < kLayers; ++l) {
        const auto layer = smallLayer(l, 200);
        session->addLayer(uuid, layer->capture, layer->stats);
        session->setUiState("k" + std::to_string(l), "{}");
    }
    while (good < 8 && bad == 0) std::this_thread::yield();
    stop = true;
    reader.join();
    CHECK(bad == 0);
}

TEST_CASE("creating where something is, opening what is not there") {
    TempFolder temp;
    Session::create(temp / "a.sparsight").reset();
    CHECK(errorOf([&] { Session::create(temp / "a.sparsight"); }).code() == Errc::Usage);
    CHECK(errorOf([&] { Session::create(temp / "no/such/b.sparsight"); }).code() == Errc::NotFound);
    CHECK(errorOf([&] { Session::open(temp / "c.sparsight", OpenMode::ReadOnly); }).code() ==
          Errc::NotFound);
    CHECK(errorOf([&] { Session::open(temp.path, OpenMode::ReadOnly); }).code() == Errc::Format);
    CHECK(isSession(temp / "a.sparsight"));
    CHECK(!isSession(temp.path));
    // Trailing slash, symbolic link to the folder, and a name that is not UTF-8.
    fs::create_directory_symlink(temp / "a.sparsight", temp / "link.sparsight");
    CHECK_NOTHROW(Session::open(temp / "link.sparsight", OpenMode::ReadWrite));
    CHECK_NOTHROW(Session::create(temp.path.string() + "/d.sparsight/"));
    const fs::path odd = temp.path / "odd \xff name.sparsight";
    {
        const auto session = Session::create(odd);
        writeCapture(*session, 20);
    }
    CHECK(checkSession(odd).ok);
    // Four folders and the link.
    CHECK(listSessions(temp.path).size() == 4);
}

TEST_CASE("copies of the catalogue are made and stay few") {
    TempFolder temp;
    const fs::path folder = temp / "a.sparsight";
    const auto session = Session::create(folder);
    for (int i = 0; i < 5; ++i) {
        writeCapture(*session, 20, 1);
        for (const auto& e : fs::directory_iterator(folder / "backup"))
            fs::last_write_time(e.path(), e.last_write_time() - std::chrono::hours(1));
    }
    CHECK(filesBelow(folder / "backup") == 3);
}

TEST_CASE("an HDF5 helper that was killed is replaced") {
    TempFolder temp;
    const auto session = Session::create(temp / "a.sparsight");
    const std::string uuid = session->beginCapture(smallRequest(64));
    for (Index l = 0; l < kLayers; ++l) {
        const auto layer = smallLayer(l, 64);
        session->addLayer(uuid, layer->capture, layer->stats);
        int killed = 0;
        for (const auto& task : fs::directory_iterator("/proc/self/task")) {
            std::ifstream children(task.path() / "children");
            for (pid_t pid; children >> pid; ++killed) ::kill(pid, SIGKILL);
        }
        CHECK(killed == 1);
    }
    session->finishCapture(uuid, "complete");
    CHECK(checkSession(temp / "a.sparsight").ok);
}

TEST_CASE("the folder explains itself and leaves no scraps") {
    TempFolder temp;
    {
        const auto session = Session::create(temp / "a.sparsight");
        writeCapture(*session, 64);
    }
    CHECK(fs::file_size(temp / "a.sparsight/README.txt") > 200);
    CHECK(fs::is_empty(temp / "a.sparsight/tmp"));
    CHECK(std::distance(fs::directory_iterator(temp.path), fs::directory_iterator()) == 1);
}
