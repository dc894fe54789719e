#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Result {
    int status = -1;
    std::string out, err;
    Json json() const { return Json::parse(out); }
};

std::string slurp(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// A directory of this test run, removed at the end.
struct Scratch {
    fs::path path;
    Scratch() {
        std::string name = (fs::temp_directory_path() / "sparsight-cli-XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Scratch() { fs::remove_all(path); }
    std::string operator/(const std::string& name) const { return (path / name).string(); }
};

/// Runs `sparsight ARGS` through the shell.
Result sparsight(const std::string& args, const std::string& before = {}) {
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

/// A failing command: the status, and one sentence that contains `words`.
void fails(const std::string& args, int status, const std::string& words) {
    const Result r = sparsight(args);
    INFO("sparsight " << args << "\n" << r.out << r.err);
    CHECK(r.status == status);
    CHECK_THAT(r.err, Catch::Contains(words));
    CHECK(r.out.empty());
}

/// Writes all of `text` into a pipe before the program: `printf ... | sparsight`.
Result piped(const std::string& text, const std::string& args) {
    return sparsight(args, "printf '%s' '" + text + "' |");
}

/// The shape that a .npy file states, e.g. "(700, 700)", and its number of data bytes.
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

void write(const std::string& file, const std::string& text) {
    std::ofstream(file, std::ios::binary) << text;
}

/// One capture of a short needle prompt, shared by the tests below.
const std::string& needleSession() {
    static const Scratch scratch;
    static const std::string session = [] {
        const std::string path = scratch / "needle.sparsight";
        good("capture bookworm --probe niah:tokens=700,depth=0.4,seed=3 --json -o " + path);
        return path;
    }();
    return session;
}

}  // namespace

TEST_CASE("info names the bundled model's facts", "[cli]") {
    const Json j = good("info bookworm --json").json();
    CHECK(j["name"] == "bookworm");
    CHECK(j["arch"] == "llama");
    CHECK(j["layers"] == 8);
    CHECK(j["heads"] == 8);
    CHECK(j["kvHeads"] == 4);
    CHECK(j["headDim"] == 64);
    CHECK(j["vocab"] == 4096);
    CHECK(j["maxPositions"] == 32768);
    CHECK(j["dtype"] == "bfloat16");
    CHECK(j["parameters"].get<double>() == Approx(8.5e6).epsilon(0.02));
    CHECK(j["bytes"] == 17056104);
    CHECK_THAT(j["tokenizer"].get<std::string>(), Catch::Contains("4096"));
}

TEST_CASE("devices are listed, and a device that is not there is refused", "[cli]") {
    const Json list = good("devices --json").json();
    REQUIRE(!list["devices"].empty());
    CHECK(list["devices"][0]["id"] == "cpu");
    CHECK(list["devices"][0]["memoryBytes"].get<double>() > 1e8);
    const bool gpu = list["devices"].size() > 1;
    CHECK(list["noGpu"].get<std::string>().empty() == gpu);
    CHECK_THAT(good("devices").out, Catch::Contains("CPU") && Catch::Contains("free"));
    const std::string what = "info bookworm --tokens 100 --device ";
    fails(what + "gpu", 2, "cpu, cuda or cuda:N");
    fails(what + "cuda:99", 6, gpu ? "cuda:99" : list["noGpu"].get<std::string>());
    if (!gpu) fails("generate bookworm --text /dev/null --device cuda", 6, "");
}

TEST_CASE("tokenize gives ids, tokens and both kinds of offsets", "[cli]") {
    const Scratch scratch;
    write(scratch / "t.txt", "caf\u00e9 au lait");
    const Json with = good("tokenize bookworm --json --text " + (scratch / "t.txt")).json();
    const Json without =
        good("tokenize bookworm --json --no-special --text " + (scratch / "t.txt")).json();
    CHECK(with["ids"].size() == without["ids"].size() + 1);
    CHECK(with["ids"][0] == 0);
    CHECK(without["offsets"].back()[1] == 12);
    CHECK(without["byteOffsets"].back()[1] == 13);
    CHECK(without["tokens"].size() == without["ids"].size());
}

TEST_CASE("a capture checks itself and its heads are ranked", "[cli]") {
    const Json check = good("session check --json " + needleSession()).json();
    CHECK(check["ok"] == true);
    CHECK(check["segments"] == 16);  // q, k, v + pyramid of eight layers

    const Json info = good("session info --json " + needleSession()).json();
    CHECK(info["captures"][0]["state"] == "complete");
    CHECK(info["captures"][0]["massError"].get<double>() < 1e-4);

    const Json heads = good("heads --json " + needleSession()).json();
    REQUIRE(heads.size() == 64);
    Json best = heads[0];
    for (const Json& h : heads)
        if (h["retrieval"].get<double>() > best["retrieval"].get<double>()) best = h;
    CHECK(best["layer"] == 6);
    CHECK(best["head"] == 5);
    CHECK(best["retrieval"].get<double>() > 0.5);
    CHECK(best["label"] == "retrieval");
    CHECK(best["kvHead"] == 2);
}

TEST_CASE("mask metrics: keys, ranges, and dense as the closed form", "[cli]") {
    const Json dense = good("mask --json --layer 6 --method dense " + needleSession()).json();
    REQUIRE(dense.size() == 8);
    for (const Json& m : dense) {
        CHECK(m["coverage"].get<double>() == Approx(1));
        CHECK(m["density"].get<double>() == Approx(1));
        CHECK(m["recall"].get<double>() == Approx(1).margin(1e-5));
        CHECK(m["tileRecall"].get<double>() == Approx(1).margin(1e-5));
        CHECK(m["outputError"].get<double>() < 1e-5);
        CHECK(m["needleRecall"].get<double>() == Approx(1).margin(1e-4));
    }
    const Json a =
        good("mask --json --layer 6 --head 5 --method a-shape:sink=4,window=64 " + needleSession())
            .json()[0];
    CHECK(a["coverage"].get<double>() < 0.25);
    CHECK(a["recallMin"].get<double>() <= a["recallP1"].get<double>());
    CHECK(a["recallP1"].get<double>() <= a["recallP5"].get<double>());
    CHECK(a["recallP5"].get<double>() <= a["recall"].get<double>());
    CHECK(a["recall"].get<double>() <= a["tileRecall"].get<double>() + 1e-6);
    CHECK(a["needleRecall"].get<double>() < 0.1);
    CHECK(a["tiles"].get<int>() > 0);
}

TEST_CASE("top keys: stored, computed and the overlap of masks with them", "[cli]") {
    const Scratch scratch;
    const std::string session = scratch / "top.sparsight";
    const std::string what =
        "capture bookworm --probe niah:tokens=700,depth=0.4,seed=3 --layers 6 ";
    const Json cheap = good(what + "--estimate --json").json(),
               dear = good(what + "--top-k --estimate --json").json();
    // 8 heads, 64 keys of 8 bytes a row.
    const long rows = dear["tokens"].get<long>();
    CHECK(dear["topKeyBytes"] == rows * 8 * 64 * 8);
    CHECK(dear["diskBytes"].get<long>() ==
          cheap["diskBytes"].get<long>() + dear["topKeyBytes"].get<long>());
    CHECK(dear["memoryBytes"].get<long>() > cheap["memoryBytes"].get<long>());
    good(what + "--top-k -o " + session);
    CHECK(newestCapture(session)["topKeys"] == true);
    CHECK(newestCapture(needleSession())["topKeys"] == false);
    CHECK(good("session check --json " + session).json()["ok"] == true);

    const std::string rowsWanted = " --layer 6 --head 5 --row 40-42 -k 64";
    const Json stored = good("top --json " + session + rowsWanted).json();
    const Json computed = good("top --json " + needleSession() + rowsWanted).json();
    REQUIRE(stored.size() == 3);
    REQUIRE(computed.size() == 3);
    for (int i = 0; i < 3; ++i) {
        const Json &a = stored[std::size_t(i)], &b = computed[std::size_t(i)];
        CHECK(a["row"] == 40 + i);
        CHECK(a["stored"] == true);
        CHECK(b["stored"] == false);
        REQUIRE(a["keys"].size() == std::size_t(41 + i));  // all that the row sees
        REQUIRE(b["keys"].size() == a["keys"].size());
        double sum = 0, before = 1;
        for (std::size_t n = 0; n < a["keys"].size(); ++n) {
            const Json &x = a["keys"][n], &y = b["keys"][n];
            const double p = x["probability"].get<double>();
            CHECK(p == Approx(y["probability"].get<double>()).margin(1e-6));
            CHECK(p <= before);
            if (p > 1e-4) {
                CHECK(x["key"] == y["key"]);
                CHECK(x["token"] == y["token"]);
            }
            sum += p;
            CHECK(x["cumulative"].get<double>() == Approx(sum));
            before = p;
        }
        CHECK(sum == Approx(1).margin(1e-5));
    }
    // More keys than are stored are computed; ten unless told.
    CHECK(good("top --json " + session + " --layer 6 --head 5 --row last -k 65")
              .json()[0]["stored"] == false);
    const Json last = good("top --json " + session + " --layer 6 --head 5 --row last").json()[0];
    CHECK(last["row"] == rows - 1);
    CHECK(last["keys"].size() == 10);
    CHECK_THAT(good("top " + session + " --layer 6 --head 5 --row 3").out,
               Catch::Contains("cumulative") && Catch::Contains("stored with the capture"));
    CHECK_THAT(good("top " + needleSession() + " --layer 6 --head 5 --row 3").out,
               Catch::Contains("computed from Q and K"));

    const std::string mask = "mask --json --layer 6 --head 5 --method ";
    const Json dense = good(mask + "dense " + session).json()[0]["topOverlap"];
    for (const char* k : {"1", "16", "64"}) CHECK(dense[k].get<double>() == Approx(1));
    const Json narrow = good(mask + "a-shape:sink=4,window=64 " + session).json()[0]["topOverlap"];
    CHECK(narrow["64"].get<double>() < 0.9);
    CHECK(narrow["64"].get<double>() > 0.1);
    CHECK(good(mask + "dense " + needleSession()).json()[0]["topOverlap"].is_null());
    CHECK_THAT(good("mask --layer 6 --method dense " + session).out, Catch::Contains("top16"));

    const std::string head = "top " + session + " --layer 6 --head 5 --row ";
    fails(head + "9-3", 2, "is not of the form 17, 17-20 or last");
    fails(head + "100000", 2, "rows of this layer: 0..");
    fails(head + "x", 2, "is not of the form");
    fails("top " + session + " --layer 6 --head 8 --row 3", 4, "query heads are 0..7");
    fails("top " + session + " --layer 2 --head 0 --row 3", 4, "not in this capture");
}

TEST_CASE("the dumped mask is the a-shape, pair by pair", "[cli]") {
    const Scratch scratch;
    const Json tokens =
        good("session info --json " + needleSession()).json()["captures"][0]["tokens"];
    const auto n = tokens.get<long>();
    good("mask --layer 0 --head 0 --method a-shape:sink=4,window=8 --dump " + (scratch / "m.npy") +
         " " + needleSession());
    const std::string npy = slurp(scratch / "m.npy");
    REQUIRE(npy.size() > std::size_t(n * n));
    const std::string data = npy.substr(npy.size() - std::size_t(n * n));
    long wrong = 0;
    for (long q = 0; q < n; ++q)
        for (long k = 0; k < n; ++k)
            wrong += data[std::size_t(q * n + k)] != char(k <= q && (k < 4 || q - k < 8));
    CHECK(wrong == 0);
}

TEST_CASE("map writes the statistic and the figures", "[cli]") {
    const Scratch scratch;
    const std::string where = " --layer 6 --head 5 " + needleSession();
    good("map --size 64x64 --stat sum -o " + (scratch / "m.npy") + where);
    const std::string npy = slurp(scratch / "m.npy");
    const auto* px = reinterpret_cast<const float*>(npy.data() + npy.size() - 64 * 64 * 4);
    double sum = 0;
    for (int i = 0; i < 64 * 64; ++i) {
        float v;
        std::memcpy(&v, px + i, 4);
        if (v > 0) sum += double(v);
    }
    const auto n = good("session info --json " + needleSession())
                       .json()["captures"][0]["tokens"]
                       .get<double>();
    CHECK(sum == Approx(n).epsilon(1e-3));  // every row sums to 1
    for (const char* ending : {"png", "svg", "pdf"}) {
        const std::string file = scratch / (std::string("f.") + ending);
        good("map --size 200x200 --overlay a-shape:sink=4,window=64 -o " + file + where);
        CHECK(fs::file_size(file) > 5000);
    }
}

TEST_CASE("run measures dense against the plan", "[cli]") {
    const Json r =
        good("run --json --layer 6 --method a-shape:sink=4,window=64 " + needleSession()).json();
    for (const char* key :
         {"denseMs", "sparseMs", "selectMs", "speedup", "density", "outputError"}) {
        CAPTURE(key);
        CHECK(r[key].get<double>() >= 0);
    }
    CHECK(r["speedup"].get<double>() ==
          Approx(r["denseMs"].get<double>() /
                 (r["sparseMs"].get<double>() + r["selectMs"].get<double>())));
    CHECK(r["threads"].get<int>() >= 1);
    CHECK_FALSE(r["kernel"].get<std::string>().empty());
}

TEST_CASE("curve, plan, export and import go round", "[cli]") {
    const Scratch scratch;
    const Json curves =
        good("curve --json --layer 6 --head 5 --points 4 --methods a-shape:sink=4,oracle-blocks " +
             needleSession())
            .json();
    REQUIRE(curves.size() == 2);
    for (const Json& c : curves) {
        double last = 0;
        for (const Json& p : c["points"]) {
            CHECK(p["density"].get<double>() >= last);
            last = p["density"].get<double>();
        }
        CHECK(c["points"].size() >= 2);
    }

    const std::string plan = scratch / "plan.json", config = scratch / "mi.json",
                      back = scratch / "back.json";
    good("plan --model bookworm --uniform retrieval-heads:heads=6.5+7.6,sink=4,window=256 -o " +
         plan);
    good("export " + plan + " --to minference -o " + config);
    good("import " + config + " --model bookworm -o " + back);
    good("export " + plan + " --to csv -o " + (scratch / "a.csv"));
    good("export " + back + " --to csv -o " + (scratch / "b.csv"));
    CHECK(slurp(scratch / "a.csv") == slurp(scratch / "b.csv"));
    const Json mi = Json::parse(slurp(config));
    REQUIRE(mi.size() == 8);
    CHECK(mi[0]["0"][0] == "stream_llm");
    CHECK(mi[0]["0"][1] == 4);
    CHECK(mi[0]["0"][2] == 256);
    CHECK(mi[6]["5"][0] == "vertical_and_slash");

    const std::string searched = scratch / "searched.json";
    good("plan " + needleSession() +
         " --recall 0.9 --points 5 --methods a-shape:sink=4,oracle-blocks -o " + searched);
    CHECK(Json::parse(slurp(searched))["format"] == "sparsight-plan");
}

TEST_CASE("generate and eval under a plan", "[cli]") {
    const Scratch scratch;
    const std::string plan = scratch / "plan.json";
    good("plan --model bookworm --uniform dense -o " + plan);
    const Json e =
        good("eval bookworm --json --plan " + plan + " --probe niah:tokens=500,seed=2").json();
    CHECK(e["meanKL"].get<double>() == Approx(0).margin(1e-7));
    CHECK(e["top1Agreement"].get<double>() == Approx(1));
    CHECK(e["needleDense"] == true);
    CHECK(e["needlePlan"] == true);
    CHECK(e["nllDense"].get<double>() == Approx(e["nllPlan"].get<double>()));

    write(scratch / "p.txt", "It was the best of times");
    const Json g =
        good("generate bookworm --json --max-new 4 --text " + (scratch / "p.txt")).json();
    CHECK(g["ids"].size() == 4);
    const Json planned = good("generate bookworm --json --max-new 4 --plan " + plan + " --text " +
                              (scratch / "p.txt"))
                             .json();
    CHECK(planned["ids"] == g["ids"]);
    CHECK(planned["text"] == g["text"]);
}

TEST_CASE("errors are one clear sentence with their exit status", "[cli]") {
    const Scratch scratch;
    const std::string& s = needleSession();
    fails("info nosuchmodel", 4, "bookworm");
    fails("mask --method a-shap " + s, 4, "a-shape");
    fails("mask --method a-shape:windo=3 " + s, 2, "window");
    fails("mask --method a-shape:window=-3 " + s, 2, "window");
    fails("mask --method dense --layer 8 " + s, 4, "layer 8");
    fails("mask --method dense --head 8 " + s, 4, "0..7");
    fails("map --layer 0 --head 0 --rect 0:9,0:99999 -o " + (scratch / "x.png") + " " + s, 2,
          "not inside");
    fails("heads " + (scratch / "none.sparsight"), 4, "none.sparsight");
    write(scratch / "empty.txt", "");
    fails("capture bookworm --no-special --text " + (scratch / "empty.txt") + " -o " +
              (scratch / "e.sparsight"),
          2, "empty");
    CHECK_FALSE(fs::exists(scratch / "e.sparsight"));
    fails(
        "capture bookworm --text " + (scratch / "nofile.txt") + " -o " + (scratch / "e.sparsight"),
        4, "nofile.txt");

    fs::create_directory(scratch / "gpt9");
    write(scratch / "gpt9/config.json", R"({"model_type": "gpt9"})");
    fails("info " + (scratch / "gpt9"), 3, "llama");
    fs::create_directory(scratch / "damaged.sparsight");
    write(scratch / "damaged.sparsight/session.db", "not a database");
    fails("heads " + (scratch / "damaged.sparsight"), 3, "session");

    const std::string plan = scratch / "anti.json";
    good("plan --model bookworm --uniform antidiagonal -o " + plan);
    fails("export " + plan + " --to minference -o " + (scratch / "mi.json"), 3, "antidiagonal");
    CHECK_FALSE(fs::exists(scratch / "mi.json"));
    fails("export " + plan + " --to minferenz -o " + (scratch / "mi.json"), 4, "minference");

    fails("capure bookworm", 2, "did you mean 'capture'");
    fails("nosuchcommand", 2, "nosuchcommand");
    fails("generate bookworm --max-new 0 --text " + (scratch / "empty.txt"), 2, "max-new");
    fails("eval bookworm --plan " + plan, 2, "--probe");
    fails("eval bookworm --plan " + plan + " --probe niah:token=9", 2, "tokens");
    fails("eval bookworm --plan " + plan + " --probe niah:tokens=5", 2, "too few");
    fails("run --method dense --repeat 4 " + s, 2, "repeat");
    fails("run --method dense --device cuda:99 " + s, 6, "sparsight: ");
    fails("map --layer 0 --head 0 --rect 1:2 -o " + (scratch / "x.png") + " " + s, 2,
          "q0:q1,k0:k1");
    fails("map --layer 0 --head 0 --size 12 -o " + (scratch / "x.png") + " " + s, 2, "WxH");
    fails("map --layer 0 --head 0 --stat median -o " + (scratch / "x.png") + " " + s, 2, "stat");
    fails("map --layer 0 --head 0 -o " + (scratch / "x.bmp") + " " + s, 2, ".npy");
    fails("map --layer 0 --head 0 --overlay a-shap -o " + (scratch / "x.png") + " " + s, 4,
          "a-shape");
    fails("curve --layer 0 --head 0 --methods dense -o " + (scratch / "x.txt") + " " + s, 2,
          ".csv");
    fails("mask --method dense --dump " + (scratch / "x.npy") + " " + s, 2, "--layer and --head");
    fails("mask --method dense -o " + (scratch / "x.txt") + " " + s, 2, ".csv");
    fails("heads --capture ffffffffffff " + s, 4, "ffffffffffff");
    fails("plan " + s + " -o " + (scratch / "p.json"), 2, "--recall");
    fails("plan --uniform dense -o " + (scratch / "p.json"), 2, "--model");
    fails("plan --model bookworm --uniform retrieval-heads -o " + (scratch / "p.json"), 2,
          "heads=");
    fails("import " + (scratch / "none.json") + " --model bookworm -o " + (scratch / "p.json"), 4,
          "none.json");
    fails("session list " + (scratch / "nodir"), 4, "nodir");
    fails("session check " + (scratch / "none.sparsight"), 4, "none.sparsight");
    for (const char* name : {"x.png", "x.bmp", "x.txt", "x.npy", "p.json"})
        CHECK_FALSE(fs::exists(scratch / name));
    CHECK(sparsight("heads " + s, "SPARSIGHT_KERNEL=abacus").status == 2);
    CHECK(sparsight("mask").status == 2);
    CHECK(sparsight("--help").status == 0);
    CHECK_FALSE(good("--version").out.empty());
    for (const char* command : {"list", "info", "check"})
        CHECK(sparsight(std::string("session ") + command + " --help").status == 0);
    for (const char* command :
         {"info", "tokenize", "generate", "eval", "capture", "heads", "mask", "map", "run", "curve",
          "plan", "export", "import", "methods", "session"}) {
        CAPTURE(command);
        CHECK(sparsight(std::string(command) + " --help").status == 0);
    }
}

TEST_CASE("truncated weights and NaN weights are refused by name", "[cli]") {
    const Scratch scratch;
    const fs::path model = fs::path(SPARSIGHT_SOURCE_DIR) / "resources/models/bookworm";
    for (const char* kind : {"cut", "nan"}) {
        const fs::path copy = scratch.path / kind;
        fs::copy(model, copy, fs::copy_options::recursive);
        fs::permissions(copy / "model.safetensors", fs::perms::owner_write, fs::perm_options::add);
        if (std::string(kind) == "cut") {
            fs::resize_file(copy / "model.safetensors",
                            fs::file_size(copy / "model.safetensors") - 100);
        } else {
            std::fstream f(copy / "model.safetensors",
                           std::ios::in | std::ios::out | std::ios::binary);
            f.seekp(-2, std::ios::end);
            f.write("\xff\x7f", 2);  // a bfloat16 NaN in the last tensor
        }
        write(scratch / "t.txt", "Call me Ishmael.");
        fails("generate " + copy.string() + " --text " + (scratch / "t.txt"), 3,
              std::string(kind) == "cut" ? "model.safetensors" : "model.");
    }
}

TEST_CASE("an interrupted capture can be resumed", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "r.sparsight";
    // timeout sends the same signal as Ctrl+C once layers have begun to land.
    const Result cut = sparsight("capture bookworm --probe niah:tokens=6000 -o " + s,
                                 "timeout --preserve-status -s INT 4");
    if (cut.status == 0) {
        WARN("the machine finished 6000 tokens before the interrupt");
        return;
    }
    CHECK(cut.status == 5);
    if (!fs::exists(s)) return;  // interrupted while the model was loading
    const Json before = good("session info --json " + s).json()["captures"][0];
    CHECK(before["state"] == "cancelled");
    const Json after = good("capture bookworm --resume --json -o " + s).json();
    CHECK(after["layers"] == 8);
    CHECK(after["massError"].get<double>() < 1e-4);
    CHECK(good("session check --json " + s).json()["ok"] == true);
}

TEST_CASE("tokenize reads standard input and a tokenizer.json alone", "[cli]") {
    const Scratch scratch;
    const std::string file =
        std::string(SPARSIGHT_SOURCE_DIR) + "/resources/models/bookworm/tokenizer.json";
    const Result byModel = piped("Call me Ishmael.", "tokenize bookworm --json");
    const Result byFile = piped("Call me Ishmael.", "tokenize " + file + " --json --text -");
    REQUIRE(byModel.status == 0);
    REQUIRE(byFile.status == 0);
    CHECK(byModel.json() == byFile.json());
    CHECK(byModel.err.empty());

    write(scratch / "tokenizer.json",
          R"({"version": "1.0", "model": {"type": "Mystery", "vocab": [["a", 0.0]]}})");
    const Result mystery = piped("a", "tokenize " + (scratch / "tokenizer.json"));
    CHECK(mystery.status == 3);
    CHECK_THAT(mystery.err, Catch::Contains("Mystery") && Catch::Contains("Unigram"));
}

TEST_CASE("tokenize reads a pair and decodes ids", "[cli]") {
    const Scratch scratch;
    const std::string bert =
        std::string("tokenize --json ") + SPARSIGHT_TEST_DATA + "/parity/tokenizers/bert_uncased";
    write(scratch / "a", "Hello there");
    write(scratch / "b", " and you?");
    const Json j = good(bert + " --text " + (scratch / "a") + " --pair " + (scratch / "b")).json();
    const Json golden = Json::parse(
        slurp(std::string(SPARSIGHT_TEST_DATA) + "/parity/tokenizers/bert_uncased/golden.json"));
    const auto& pairs = golden["pair"];
    const auto g = std::find_if(pairs.begin(), pairs.end(),
                                [](const Json& p) { return p["a"] == "Hello there"; });
    REQUIRE(g != pairs.end());
    CHECK(j["ids"] == (*g)["ids"]);
    CHECK(j["typeIds"] == (*g)["type_ids"]);
    CHECK(j["offsets"] == (*g)["offsets"]);
    CHECK(j["special"][0] == 1);
    CHECK(j["words"][0].is_null());
    std::string ids;
    for (const Json& id : j["ids"]) ids += (ids.empty() ? "" : ",") + std::to_string(id.get<int>());
    const Json text = good(bert + " --decode " + ids).json();
    CHECK_THAT(text["textWithSpecial"].get<std::string>(), Catch::StartsWith("[CLS] hello there"));
    CHECK_THAT(text["text"].get<std::string>(), Catch::StartsWith("hello there"));
}

TEST_CASE("a conversation is written by the model's chat template", "[cli]") {
    const Scratch scratch;
    fs::copy_file(std::string(SPARSIGHT_SOURCE_DIR) + "/resources/models/bookworm/tokenizer.json",
                  scratch / "tokenizer.json");
    const std::string tokenize = "tokenize --json " + scratch.path.string();
    write(scratch / "chat.json", R"([{"role": "user", "content": "Call me Ishmael."}])");
    const Result none = sparsight(tokenize + " --chat " + (scratch / "chat.json"));
    CHECK(none.status == 4);
    CHECK_THAT(none.err, Catch::Contains("no chat template"));
    write(scratch / "chat_template.jinja",
          "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
          "{% if add_generation_prompt %}you:{% endif %}");
    const Json chat = good(tokenize + " --chat " + (scratch / "chat.json")).json();
    write(scratch / "text.txt", "user: Call me Ishmael.\nyou:");
    CHECK(chat == good(tokenize + " --no-special --text " + (scratch / "text.txt")).json());
    CHECK(sparsight(tokenize + " --chat a --text b").status == 2);
    write(scratch / "chat_template.jinja", "{% include 'other' %}");
    const Result beyond = sparsight(tokenize + " --chat " + (scratch / "chat.json"));
    CHECK(beyond.status == 3);
    CHECK_THAT(beyond.err, Catch::Contains("include"));
}

TEST_CASE("block methods dump block masks, and the table goes to CSV beside JSON", "[cli]") {
    const Scratch scratch;
    const long n = newestCapture(needleSession())["tokens"].get<long>(), blocks = (n + 127) / 128;
    const std::string dump = scratch / "b.npy", csv = scratch / "m.csv";
    const Result r = good("mask --json --layer 6 --head 5 --method antidiagonal --dump " + dump +
                          " -o " + csv + " " + needleSession());
    CHECK(r.err.empty());  // no progress where nobody looks
    CHECK(r.json().size() == 1);
    const std::string npy = slurp(dump);
    CHECK(npyShape(npy) == "(" + std::to_string(blocks) + ", " + std::to_string(blocks) + ")");
    CHECK_THAT(npy.substr(0, npyHeader(npy)), Catch::Contains("u1"));
    REQUIRE(npy.size() == npyHeader(npy) + std::size_t(blocks * blocks));
    for (long q = 0; q < blocks; ++q)
        for (long k = 0; k < blocks; ++k) {
            const char kept = npy[npyHeader(npy) + std::size_t(q * blocks + k)];
            CAPTURE(q, k);
            if (k == 0 || k == q) CHECK(kept == 1);
            if (k > q) CHECK(kept == 0);
        }
    const std::string table = slurp(csv);
    CHECK(table.rfind("layer,head,coverage,density,recall,recallMin,recallP1,recallP5,tileRecall,"
                      "needleRecall,outputError,tiles\n",
                      0) == 0);
    CHECK(std::count(table.begin(), table.end(), '\n') == 2);
}

TEST_CASE("map: a rectangle, the mean, and two overlays before the session", "[cli]") {
    const Scratch scratch;
    const std::string file = scratch / "r.npy";
    good(
        "map --json --layer 0 --head 0 --rect 0:64,0:64 --size 64x64 --stat mean --scale linear "
        "-o " +
        file + " " + needleSession());
    const std::string npy = slurp(file);
    CHECK(npyShape(npy) == "(64, 64)");
    CHECK_THAT(npy.substr(0, npyHeader(npy)), Catch::Contains("f4"));
    REQUIRE(npy.size() == npyHeader(npy) + 64 * 64 * 4);
    double firstRow = 0;
    for (std::size_t q = 0; q < 64; ++q) {
        double sum = 0;
        for (std::size_t k = 0; k < 64; ++k) {
            float v;
            std::memcpy(&v, npy.data() + npyHeader(npy) + (q * 64 + k) * 4, 4);
            if (k > q && !(v < 0)) FAIL("a pair above the diagonal at " << q << ", " << k);
            if (v > 0) sum += double(v);
        }
        if (q == 0) firstRow = sum;
        CHECK(sum == Approx(1).epsilon(1e-4));
    }
    CHECK(firstRow == Approx(1));
    const std::string svg = scratch / "o.svg";
    good("map --layer 6 --head 5 --size 100x100 -o " + svg +
         " --overlay a-shape:sink=4,window=64 --overlay dense " + needleSession());
    CHECK(fs::file_size(svg) > 5000);
}

TEST_CASE("curve writes every format that it names", "[cli]") {
    const Scratch scratch;
    for (const char* ending : {"csv", "json", "png", "svg", "pdf"}) {
        CAPTURE(ending);
        const std::string file = scratch / (std::string("c.") + ending);
        good(
            "curve --layer 6 --head 5 --points 3 --methods "
            "a-shape:sink=4,antidiagonal,oracle-blocks -o " +
            file + " " + needleSession());
        const std::string text = slurp(file);
        CHECK(text.size() > 200);
        if (std::string(ending) == "csv")
            CHECK(text.rfind("method,density,coverage,recall,spec\n", 0) == 0);
        if (std::string(ending) == "json") CHECK(Json::parse(text).size() == 3);
    }
}

TEST_CASE("plans: by density, by the capture's scores, through CSV and DuoAttention", "[cli]") {
    const Scratch scratch;
    const std::string dense = scratch / "d.json", scored = scratch / "s.json",
                      back = scratch / "b.json";
    const Json byDensity = good("plan --json " + needleSession() +
                                " --density 0.3 --points 4 --methods a-shape:sink=4 -o " + dense)
                               .json();
    CHECK(byDensity["plan"] == dense);
    Json::number_integer_t heads = 0;
    for (const auto& [id, count] : byDensity["heads"].items())
        heads += count.get<Json::number_integer_t>();
    CHECK(heads == 64);

    good("plan " + needleSession() + " --uniform retrieval-heads:sink=4,window=256 -o " + scored);
    good("export " + scored + " --to csv -o " + (scratch / "s.csv"));
    good("import " + (scratch / "s.csv") + " --model bookworm -o " + back);
    good("export " + back + " --to csv -o " + (scratch / "b.csv"));
    CHECK(slurp(scratch / "s.csv") == slurp(scratch / "b.csv"));
    CHECK_THAT(slurp(scratch / "s.csv"), Catch::Contains("6,5,"));

    // Both query heads of KV head 2 are dense, so the pattern of KV heads says the same.
    const std::string pair = scratch / "pair.json";
    good("plan --model bookworm --uniform retrieval-heads:heads=6.4+6.5,sink=4,window=256 -o " +
         pair);
    const Result duo = sparsight("export --json " + pair + " --to duoattention --allow-loss -o " +
                                 (scratch / "duo"));
    INFO(duo.err);
    REQUIRE(duo.status == 0);
    good("import " + (scratch / "duo") + " --model bookworm -o " + back);
    CHECK(Json::parse(slurp(back))["format"] == "sparsight-plan");
}

TEST_CASE("streaming everywhere loses the answer, one dense head brings it back", "[cli]") {
    const Scratch scratch;
    const std::string streaming = scratch / "streaming.json", one = scratch / "one.json";
    const std::string probe = " --probe niah:tokens=1500,depth=0.35,seed=1";
    good("plan --model bookworm --uniform a-shape:sink=4,window=256 -o " + streaming);
    good("plan --model bookworm --uniform retrieval-heads:heads=6.5,sink=4,window=256 -o " + one);
    const Json lost = good("eval bookworm --json --plan " + streaming + probe).json();
    CHECK(lost["needleDense"] == true);
    CHECK(lost["needlePlan"] == false);
    CHECK(lost["density"].get<double>() < 0.6);
    CHECK(lost["meanKL"].get<double>() > 0);
    const Json found = good("eval bookworm --json --plan " + one + probe).json();
    CHECK(found["needlePlan"] == true);
    CHECK(found["density"].get<double>() > lost["density"].get<double>());

    // On plain text there is no needle to ask for.
    write(scratch / "t.txt", "It was the best of times, it was the worst of times.");
    const Json text =
        good("eval bookworm --json --plan " + streaming + " --text " + (scratch / "t.txt")).json();
    CHECK(text["needleDense"].is_null());
    CHECK(text["needlePlan"].is_null());
}

TEST_CASE("some layers only, and a second capture in the same session", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "part.sparsight";
    write(scratch / "t.txt", "It was the best of times, it was the worst of times.");
    const Json first =
        good("capture bookworm --json --layers 0,2-3 --text " + (scratch / "t.txt") + " -o " + s)
            .json();
    CHECK(first["layers"] == 3);
    CHECK(first["bytes"].get<long>() > 0);
    const Json heads = good("heads --json " + s).json();
    CHECK(heads.size() == 24);
    CHECK(heads[0]["retrieval"].is_null());
    fails("mask --method dense --layer 5 " + s, 4, "0, 2, 3");
    fails("mask --method retrieval-heads " + s, 2, "--probe niah");
    const int beyond = sparsight("capture bookworm --layers 0,9 --text " + (scratch / "t.txt") +
                                 " -o " + (scratch / "x.sparsight"))
                           .status;
    CHECK((beyond == 2 || beyond == 4));
    CHECK_FALSE(fs::exists(scratch / "x.sparsight"));

    const Json second = good("capture bookworm --json --layers 1 --store f16 --text " +
                             (scratch / "t.txt") + " -o " + s)
                            .json();
    CHECK(second["capture"] != first["capture"]);
    CHECK(good("heads --json " + s).json().size() == 8);
    CHECK(good("heads --json --capture " + first["capture"].get<std::string>().substr(0, 12) + " " +
               s)
              .json()
              .size() == 24);
    const Json list = good("session list --json " + scratch.path.string()).json();
    REQUIRE(list.size() == 1);
    CHECK(list[0]["captures"].size() == 2);
}

TEST_CASE("a prompt beyond the limit is a warning, an estimate is not a capture", "[cli]") {
    const Result r = good("capture bookworm --estimate --json --probe niah:tokens=33000");
    CHECK_THAT(r.err, Catch::Contains("32,768"));
    const Json j = r.json();
    for (const char* key : {"tokens", "seconds", "memoryBytes", "diskBytes"})
        CHECK(j[key].get<double>() > 0);
}

TEST_CASE("a session that another process writes to can be read, not written", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "l.sparsight";
    write(scratch / "t.txt", "Call me Ishmael.");
    const std::string capture =
        "capture bookworm --layers 0 --text " + (scratch / "t.txt") + " -o " + s;
    good(capture);
    const int fd = ::open((s + "/session.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    REQUIRE(fd >= 0);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    REQUIRE(::fcntl(fd, F_OFD_SETLK, &lock) == 0);
    fails(capture, 6, "open for writing");
    CHECK(good("heads --json " + s).json().size() == 8);
    ::close(fd);
    good(capture);
}

TEST_CASE("a full disk loses nothing that was finished", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "full.sparsight";
    const std::string args = "capture bookworm --probe niah:tokens=500 -o " + s;
    const Result r = sparsight(args, "SPARSIGHT_FAULT=S4:6:enospc");
    INFO(r.err);
    CHECK(r.status == 6);
    CHECK_THAT(r.err, Catch::Contains("disk is full"));
    CHECK(good("session check --json " + s).json()["ok"] == true);
    CHECK(newestCapture(s)["state"] != "complete");
    const Json after = good("capture bookworm --resume --json -o " + s).json();
    CHECK(after["layers"] == 8);
    CHECK(newestCapture(s)["state"] == "complete");
}

TEST_CASE("info reads the headers of a huge model only", "[cli]") {
    // 400 GB in 62 shards, all holes: whoever reads weights would be seen.
    const Scratch scratch;
    constexpr std::int64_t hidden = 16384, width = 53248, vocab = 128256, layers = 62;
    Json map;
    const auto shard = [&](const std::string& name,
                           const std::vector<std::pair<std::string, Json>>& all) {
        Json header;
        std::int64_t at = 0;
        for (const auto& [tensor, shape] : all) {
            std::int64_t bytes = 2;
            for (const Json& d : shape) bytes *= d.get<std::int64_t>();
            header[tensor] = {
                {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {at, at + bytes}}};
            map[tensor] = name;
            at += bytes;
        }
        const std::string json = header.dump();
        const std::uint64_t size = json.size();
        write(scratch / name, std::string(reinterpret_cast<const char*>(&size), 8) + json);
        fs::resize_file(scratch / name, 8 + size + std::uint64_t(at));
    };
    for (std::int64_t l = 0; l < layers; ++l) {
        const std::string p = "model.layers." + std::to_string(l) + ".";
        std::vector<std::pair<std::string, Json>> all{
            {p + "self_attn.q_proj.weight", {hidden, hidden}},
            {p + "self_attn.k_proj.weight", {1024, hidden}},
            {p + "self_attn.v_proj.weight", {1024, hidden}},
            {p + "self_attn.o_proj.weight", {hidden, hidden}},
            {p + "mlp.gate_proj.weight", {width, hidden}},
            {p + "mlp.up_proj.weight", {width, hidden}},
            {p + "mlp.down_proj.weight", {hidden, width}},
            {p + "input_layernorm.weight", Json::array({hidden})},
            {p + "post_attention_layernorm.weight", Json::array({hidden})}};
        if (l == 0) {
            all.push_back({"model.embed_tokens.weight", {vocab, hidden}});
            all.push_back({"lm_head.weight", {vocab, hidden}});
            all.push_back({"model.norm.weight", Json::array({hidden})});
        }
        shard("model-" + std::to_string(l) + ".safetensors", all);
    }
    write(scratch / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
    Json config = {{"model_type", "llama"},
                   {"hidden_size", hidden},
                   {"intermediate_size", width},
                   {"num_hidden_layers", layers},
                   {"num_attention_heads", 128},
                   {"num_key_value_heads", 8},
                   {"vocab_size", vocab},
                   {"torch_dtype", "bfloat16"},
                   {"max_position_embeddings", 8192}};
    write(scratch / "config.json", config.dump());
    const Json j = good("info --tokens 4096 --json " + scratch.path.string()).json();
    CHECK(j["parameters"] == 201840345088);
    CHECK(j["bytes"].get<double>() > 4.03e11);
    CHECK(j["files"] == layers);
    CHECK(j["storedAs"] == "BF16");
    CHECK(j["unsupported"] == "");
    const Json& estimate = j["estimate"];
    CHECK(estimate["seconds"].get<double>() > 1);
    // One layer as float32 is 12.7 GB; the whole model would be 807 GB.
    CHECK(estimate["memoryBytes"].get<double>() > 1.2e10);
    CHECK(estimate["memoryBytes"].get<double>() < 3e10);

    // A tensor that is missing, and an architecture that nobody knows, still have facts.
    config["num_hidden_layers"] = layers + 1;
    write(scratch / "config.json", config.dump());
    const Result missing = sparsight("info " + scratch.path.string());
    CHECK(missing.status == 3);
    CHECK_THAT(missing.out, Catch::Contains("201,840,345,088"));
    CHECK_THAT(missing.err, Catch::Contains("model.layers.62.input_layernorm.weight"));
    config["model_type"] = "lama";
    write(scratch / "config.json", config.dump());
    const Result unknown = sparsight("info " + scratch.path.string());
    CHECK(unknown.status == 3);
    CHECK_THAT(unknown.out, Catch::Contains("201,840,345,088"));
    CHECK_THAT(unknown.err, Catch::Contains("did you mean llama?"));
    CHECK_THAT(unknown.err, Catch::Contains("import-tensors"));
}

TEST_CASE("one flipped byte in a segment is found and named", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "f.sparsight";
    write(scratch / "t.txt", "Call me Ishmael.");
    good("capture bookworm --layers 0 --text " + (scratch / "t.txt") + " -o " + s);
    fs::path largest;
    for (const auto& entry : fs::recursive_directory_iterator(s))
        if (entry.is_regular_file() && entry.path().extension() == ".h5" &&
            (largest.empty() || entry.file_size() > fs::file_size(largest)))
            largest = entry.path();
    REQUIRE_FALSE(largest.empty());
    fs::permissions(largest, fs::perms::owner_write, fs::perm_options::add);
    std::string bytes = slurp(largest);
    bytes[bytes.size() / 2] = char(bytes[bytes.size() / 2] ^ 0x20);
    write(largest.string(), bytes);
    const Result check = sparsight("session check --json " + s);
    CHECK(check.status == 3);
    CHECK(check.json()["ok"] == false);
    CHECK_FALSE(check.json()["problems"].empty());
    CHECK(sparsight("mask --method dense " + s).status == 3);
}

TEST_CASE("a header that promises more than the file holds is refused", "[cli]") {
    const Scratch scratch;
    const fs::path model = fs::path(SPARSIGHT_SOURCE_DIR) / "resources/models/bookworm";
    fs::create_directory(scratch / "m");
    for (const char* name : {"config.json", "tokenizer.json"})
        fs::copy(model / name, scratch.path / "m" / name);
    write(scratch / "m/model.safetensors",
          std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + "{}");
    fails("info " + (scratch / "m"), 3, "model.safetensors");
}

TEST_CASE("gui without a display says so", "[cli]") {
    if (!fs::exists(fs::path(SPARSIGHT_CLI).parent_path() / "sparsight-gui")) {
        WARN("built without the desktop program");
        return;
    }
    const Result r = sparsight("gui", "env -u DISPLAY -u WAYLAND_DISPLAY -u QT_QPA_PLATFORM");
    CHECK(r.status == 6);
    CHECK_THAT(r.err, Catch::Contains("no display"));
}

TEST_CASE("import-tensors makes a session that every command reads", "[cli]") {
    const Scratch scratch;
    const std::string data = SPARSIGHT_TEST_DATA "/import/", session = scratch / "i.sparsight";
    const Json list = good("import-tensors " + data + "layers.npz --list --json").json();
    CHECK(list["patterns"]["q"] == "l{layer}_q");
    CHECK(list["problems"].empty());
    CHECK(list["tensors"].size() == 9);
    CHECK_FALSE(fs::exists(session));

    const Json j = good("import-tensors " + data + "layers.npz --json -o " + session).json();
    CHECK(j["layers"] == 2);
    CHECK(j["heads"] == 4);
    CHECK(j["kvHeads"] == 2);
    CHECK(j["lseDifference"].get<double>() < 3e-6);
    CHECK(good("heads --json " + session).json().size() == 8);
    CHECK(good("mask --json --method a-shape:sink=1,window=8 --layer 1 " + session).json().size() ==
          4);
    good("map " + session + " --layer 0 --head 3 -o " + (scratch / "m.npy"));
    CHECK(npyShape(slurp(scratch / "m.npy")) == "(1024, 1024)");
    good("curve " + session + " --layer 0 --head 1 --methods oracle-blocks --points 3");
    CHECK(good("run --json --method a-shape:sink=1,window=8 --layer 1 " + session)
              .json()["denseMs"]
              .get<double>() > 0);
    CHECK(good("session check " + session).status == 0);
    CHECK(newestCapture(session)["model"] == "layers");

    // Into the same session: no values, another name, chosen layers and parts.
    const Json again = good("import-tensors " + data +
                            "layers.npz --map v=- --map k=l{layer}_k "
                            "--layers 1 --name other --top-k --json -o " +
                            session)
                           .json();
    CHECK(again["layers"] == 1);
    CHECK(good("session info --json " + session).json()["captures"].size() == 2);
    CHECK(newestCapture(session)["model"] == "other");
    const Json rows = good("mask --json --method a-shape:sink=1,window=8 " + session).json();
    CHECK(rows[0]["outputError"].is_null());
    CHECK(rows[0]["recall"].get<double>() < 1);
    CHECK(rows[0]["topOverlap"]["64"].get<double>() < 1);
    CHECK(good("top --json --layer 1 --head 3 --row last " + session).json()[0]["stored"] == true);
    fails("run --method a-shape " + session, 3, "without values");
}

TEST_CASE("import-tensors says what is wrong, and with which option it would be right", "[cli]") {
    const Scratch scratch;
    const std::string data = SPARSIGHT_TEST_DATA "/import/",
                      out = " -o " + (scratch / "x.sparsight");
    fails("import-tensors " + data + "bf16.npz" + out, 3, "--bf16");
    fails("import-tensors " + data + "tensors.pkl" + out, 3, "save_file(torch.load");
    fails("import-tensors " + data + "torch.bin" + out, 3, "save_file(torch.load");
    fails("import-tensors " + data + "maps.npz -o " + (scratch / "causal.sparsight"), 3,
          "--bidirectional");
    fails("import-tensors " + data + "cross.npz --causal" + out, 3, "--bidirectional");
    fails("import-tensors " + data + "stacked.npz --layers 5" + out, 3, "there are 0, 1");
    fails("import-tensors " + data + "stacked.npz --map x=y" + out, 2, "PART=PATTERN");
    fails("import-tensors " + data + "stacked.npz --map q=nope --map k=k" + out, 3, "no tensor");
    fails("import-tensors " + data + "stacked.npz --tokenizer bookworm" + out, 2, "input_ids");
    fails("import-tensors nothing.npz" + out, 4, "there is no file");
    fails("import-tensors " + data + "stacked.npz", 2, "-o NAME.sparsight");
    CHECK_FALSE(fs::exists(scratch / "x.sparsight"));
}

TEST_CASE("a small finished map becomes a session", "[cli]") {
    const Scratch scratch;
    const std::string session = scratch / "map.sparsight";
    const Result r = good(
        "import-tensors " SPARSIGHT_TEST_DATA "/import/maps.npz --bidirectional -o " + session);
    CHECK_THAT(r.out + r.err, Catch::Contains("finished maps"));
    good("map " + session + " --layer 0 --head 1 --size 4x4 -o " + (scratch / "m.npy"));

    const std::string bytes = slurp(scratch / "m.npy");
    CHECK(npyShape(bytes) == "(4, 4)");
    for (std::size_t i = 0; i < 16; ++i) {
        float p = 0;
        std::memcpy(&p, bytes.data() + bytes.size() - 64 + 4 * i, 4);
        CHECK(p == Approx(0.25f));
    }
    fails("run --method dense " + session, 3, "without values");
}

TEST_CASE("logits of encoders, of encoder-decoders and of images", "[cli]") {
    const Scratch scratch;
    const std::string parity = SPARSIGHT_TEST_DATA "/parity/";
    const Json bert = good("logits " + parity + "bert --ids 2,9,11 --top 4 --json").json();
    REQUIRE(bert.size() == 3);
    for (const Json& row : bert) {
        REQUIRE(row["top"].size() == 4);
        double sum = 0;
        for (std::size_t i = 0; i < 4; ++i) {
            sum += row["top"][i]["probability"].get<double>();
            if (i > 0) CHECK(row["top"][i]["logit"] <= row["top"][i - 1]["logit"]);
        }
        CHECK(sum <= 1);
        CHECK(sum > 0.1);
    }
    write(scratch / "t.txt", "a b");
    CHECK(good("logits " + parity + "bert --no-special --json --text " + (scratch / "t.txt"))
                  .json()
                  .size() +
              2 ==
          good("logits " + parity + "bert --json --text " + (scratch / "t.txt")).json().size());

    const std::string t5 = "logits " + parity + "t5 --ids 5,6,7";
    fails(t5, 2, "--decoder-text");
    CHECK(good(t5 + " --decoder-ids 0,4 --json").json().size() == 2);
    // The decoder's text, like its ids, begins with the start token.
    CHECK(good(t5 + " --json --decoder-text " + (scratch / "t.txt")).json().size() > 1);
    good(t5 + " --decoder-ids 0,4 -o " + (scratch / "l.npy"));
    CHECK(npyShape(slurp(scratch / "l.npy")).starts_with("(2, "));

    const std::string image = " --image " + parity + "image/colour.png";
    const Json vit = good("logits " + parity + "vit --json" + image).json();
    REQUIRE(vit.size() == 1);  // classes of the whole image, no tokens
    CHECK_FALSE(vit[0]["top"][0].contains("probability"));
    const Json resized =
        good("logits " + parity + "vit_resized --json --image-size 48x72" + image).json();
    CHECK(resized.size() == 1);
    fails("logits " + parity + "bert" + image, 3, "does not read images");
}

TEST_CASE("captures of images and of encoder-decoders, layers by name", "[cli]") {
    const Scratch scratch;
    const std::string parity = SPARSIGHT_TEST_DATA "/parity/";
    const auto info = [](const std::string& session) {
        return good("session info --json " + session).json()["captures"][0];
    };
    const std::string image = " --image " + parity + "image/colour.png";
    const std::string pictures = scratch / "image.sparsight";
    CHECK(good("capture " + parity + "vit_resized --image-size 48x72 --json" + image + " -o " +
               pictures)
              .json()["tokens"] == 55);  // 6 x 9 patches and the class token
    CHECK(info(pictures)["image"]["rows"] == 6);
    CHECK(info(pictures)["image"]["cols"] == 9);

    const std::string text = scratch / "text.sparsight";
    good("capture " + parity + "t5 --ids 5,6,7,8 --decoder-new 3 -o " + text);
    CHECK(info(text)["decoderTokens"].get<int>() >= 2);  // the start token and what was generated
    const std::string alone = scratch / "alone.sparsight";
    good("capture " + parity + "t5 --ids 5,6,7,8 --decoder-new 0 -o " + alone);
    CHECK(info(alone)["decoderTokens"] == 0);
    for (const Json& name : info(alone)["layerNames"])
        CHECK(name.get<std::string>().starts_with("enc."));
    const std::string some = scratch / "some.sparsight";
    good("capture " + parity + "bart --ids 5,6,7,8 --decoder-ids 2,5 --layers cross.0,enc.1 -o " +
         some);
    CHECK(info(some)["layerNames"] == Json{"enc.1", "cross.0"});
    CHECK(info(some)["decoderTokens"] == 2);
    write(scratch / "t.txt", "a b");
    const std::string words = scratch / "words.sparsight";
    good("capture " + parity + "t5 --ids 5,6 --decoder-text " + (scratch / "t.txt") + " -o " +
         words);
    CHECK(info(words)["decoderTokens"].get<int>() > 1);

    const std::string out = " -o " + (scratch / "x.sparsight");
    fails("capture " + parity + "bert --ids 3,4 --decoder-ids 1" + out, 3,
          "only encoder-decoders do");
    fails("capture " + parity + "bert" + image + out, 3, "does not read images");
    fails("capture " + parity + "vit --image-size 0x72" + image + out, 2, "image size '0x72'");
    fails("capture " + parity + "t5 --ids 5,6 --layers crss.0" + out, 4, "cross.0 to cross.1");
    fails("capture " + parity + "vit --image-size 48" + out, 2, "--image");
    CHECK_FALSE(fs::exists(scratch / "x.sparsight"));
}

TEST_CASE("capture --decode stores prompt and generated rows, --rows chooses among them", "[cli]") {
    const Scratch scratch;
    const std::string session = scratch / "d.sparsight", text = scratch / "p.txt";
    write(text, "The old man looked at the sea for a long time, and then he said to the boy that");
    const Json generated = good("generate bookworm --text " + text + " --max-new 10 --json").json();
    const Json j = good("capture bookworm --text " + text +
                        " --decode-steps 0,3,7-9 --top-k --json -o " + session)
                       .json();
    CHECK(j["generated"] == 10);
    const Json info = newestCapture(session);
    const int prompt = info["prefill"], tokens = info["tokens"];
    CHECK(tokens == prompt + 10);
    CHECK(prompt == generated["promptTokens"]);
    CHECK(info["decodeSteps"] == Json({0, 3, 7, 8, 9}));

    const Json all = good("heads --json " + session).json();
    const Json prefill = good("heads --json --rows prefill " + session).json();
    const Json decode = good("heads --json --rows decode " + session).json();
    REQUIRE(all.size() == 64);
    REQUIRE(prefill.size() == 64);
    REQUIRE(decode.size() == 64);
    // Fewer than 64 rows: the mean over all rows is that of the two parts.
    for (std::size_t i = 0; i < 64; ++i) {
        const double mixed = (prefill[i]["entropy"].get<double>() * prompt +
                              decode[i]["entropy"].get<double>() * 10) /
                             tokens;
        CHECK(all[i]["entropy"].get<double>() == Approx(mixed).margin(1e-4));
    }
    // The stored top keys are of all rows, and each part has its own.
    const auto overlap = [&](const std::string& rows) {
        return good("mask --json --layer 2 --head 1 --method a-shape:sink=2,window=4 --rows " +
                    rows + " " + session)
            .json()[0]["topOverlap"]["16"]
            .get<double>();
    };
    CHECK(overlap("all") * tokens ==
          Approx(overlap("prefill") * prompt + overlap("decode") * 10).margin(1e-6));
    CHECK(overlap("decode") < overlap("prefill"));
    CHECK(good("top --json --layer 2 --head 1 --row last " + session).json()[0]["row"] ==
          tokens - 1);
    const Json masks = good(
                           "mask --json --rows decode --layer 2 --head 1 "
                           "--method a-shape:sink=2,window=4 " +
                           session)
                           .json();
    CHECK(masks[0]["coverage"].get<double>() < 0.4);  // six keys of about twenty in each row
    good("mask --rows decode --layer 2 --head 1 --method a-shape:sink=2,window=4 --dump " +
         (scratch / "mask.npy") + " " + session);
    CHECK(npyShape(slurp(scratch / "mask.npy")) == "(10, " + std::to_string(tokens) + ")");
    good("map " + session + " --layer 2 --head 1 --rows decode --size 50x10 -o " +
         (scratch / "m.npy"));
    CHECK(npyShape(slurp(scratch / "m.npy")) == "(10, 50)");

    // A capture without decoding has one region only.
    good("capture bookworm --text " + text + " -o " + session);
    CHECK(newestCapture(session)["prefill"] == prompt);
    fails("heads --rows decode " + session, 2, "--decode N");
    fails("map --layer 0 --head 0 --rows decode -o " + (scratch / "n.npy") + " " + session, 2,
          "--decode N");
    fails("capture bookworm --text " + text + " --decode-steps 3-1 -o " + session, 2, "0,3,5-9");
    fails("capture bookworm --text " + text + " --decode 2 --decode-steps 5 -o " + session, 2,
          "steps 0 to 1");
    fails("capture bookworm --resume --decode 2 -o " + session, 2, "leave --decode out");
}

TEST_CASE("estimates from the statistics come near what is measured", "[cli]") {
    const std::string rule = " --layer 6 --method a-shape:sink=4,window=256 " + needleSession();
    const Json estimated = good("mask --json --estimate" + rule).json();
    const Json measured = good("mask --json" + rule).json();
    REQUIRE(estimated.size() == 8);
    REQUIRE(measured.size() == 8);
    for (std::size_t h = 0; h < 8; ++h) {
        CHECK(estimated[h]["head"] == measured[h]["head"]);
        CHECK(estimated[h]["density"] == measured[h]["density"]);
        CHECK(estimated[h]["recall"].get<double>() ==
              Approx(measured[h]["recall"].get<double>()).margin(0.01));
        CHECK(estimated[h]["exact"] == false);
    }
    fails("mask --estimate --rows prefill" + rule, 2, "--estimate");

    const Json curve = good("curve --all-heads --points 3 --json " + needleSession()).json();
    CHECK(curve[0]["heads"] == 64);
    double before = 0;
    for (const Json& point : curve[0]["points"]) {
        CHECK(point["leastRecall"].get<double>() <= point["recall"].get<double>());
        CHECK(point["recall"].get<double>() > before);
        before = point["recall"].get<double>();
    }
    CHECK(before < 1);
    fails("curve --layer 6 " + needleSession(), 2, "--all-heads");
    fails("curve --all-heads -o x.png " + needleSession(), 2, ".csv, .json");
}
