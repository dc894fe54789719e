// Masks, maps, top keys, curves and kernel runs of one session.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>

#include "tests/cli/cli.h"

using namespace cli_test;

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
