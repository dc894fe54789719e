#include <catch2/catch.hpp>

#include "core/masks/method.h"

using namespace sparsight;

namespace {

std::string message(const std::string& text, Errc expected) {
    try {
        makePolicy(parseMethod(text));
    } catch (const Error& e) {
        CHECK(e.code() == expected);
        return e.what();
    }
    FAIL("no error for " << text);
    return {};
}

}  // namespace

TEST_CASE("the registry lists the methods in their order, with unique names", "[masks]") {
    const char* ids[] = {"dense",        "a-shape",         "vertical-slash",
                         "antidiagonal", "retrieval-heads", "oracle-blocks"};
    REQUIRE(methods().size() == 6);
    for (std::size_t i = 0; i < 6; ++i) {
        const Method& m = methods()[i];
        CHECK(m.id == ids[i]);
        CHECK(&method(m.id) == &m);
        CHECK(!m.title.empty());
        CHECK(!m.summary.empty());
        CHECK(m.colour.size() == 7);
        for (const Param& p : m.params) {
            CAPTURE(m.id, p.name);
            CHECK(std::string(p.help).back() == '.');
            if (p.kind == Param::Text) continue;
            CHECK(p.least <= p.standard);
            CHECK(p.standard <= p.most);
        }
        if (!m.budgetParam.empty())
            CHECK(std::any_of(m.params.begin(), m.params.end(),
                              [&](const Param& p) { return p.name == m.budgetParam; }));
    }
    CHECK(method("a-shape").decodes);
    CHECK(method("dense").decodes);
    CHECK(method("retrieval-heads").decodes);
    CHECK_FALSE(method("vertical-slash").decodes);
    CHECK_FALSE(method("antidiagonal").decodes);
    CHECK_FALSE(method("oracle-blocks").decodes);
}

TEST_CASE("a method text is read and written back", "[masks]") {
    const char* texts[] = {"dense", "a-shape:sink=4,window=256",
                           "vertical-slash:vertical=100,slash=200,last_q=32",
                           "antidiagonal:threshold=0.95,released=1",
                           "retrieval-heads:sink=4,window=256,heads=6.5+7.6",
                           "oracle-blocks:density=0.05,block=128"};
    for (const char* text : texts) {
        CAPTURE(text);
        const MethodSpec spec = parseMethod(text);
        CHECK(toString(spec) == text);
        CHECK(parseMethod(toString(spec)) == spec);
        CHECK(makePolicy(spec) != nullptr);
    }
    const MethodSpec spec = parseMethod(" a-shape : window = 256 , sink = 4 ");
    CHECK(spec.params.numbers.at("window") == 256);
    CHECK(toString(spec) == "a-shape:sink=4,window=256");  // always in the table's order
    CHECK(parseMethod("antidiagonal:released=true").params.numbers.at("released") == 1);
    CHECK(parseMethod("retrieval-heads:table=/a,b/c,sink=4").params.texts.at("table") == "/a,b/c");
}

TEST_CASE("missing parameters take the standard value", "[masks]") {
    const Method& m = method("a-shape");
    const ParamValues all = complete(m, parseMethod("a-shape:sink=4").params);
    CHECK(all.numbers.at("sink") == 4);
    CHECK(all.numbers.at("window") == 1024);
    CHECK(complete(method("retrieval-heads"), {}).texts.at("heads").empty());
    ParamValues wrong;
    wrong.texts["sink"] = "4";
    CHECK_THROWS_AS(complete(m, wrong), Error);
}

TEST_CASE("unknown words suggest the nearest one, bad values state the range", "[masks]") {
    using Catch::Contains;
    CHECK_THAT(message("a-shap", Errc::NotFound), Contains("did you mean 'a-shape'"));
    CHECK_THAT(message("oracle", Errc::NotFound), Contains("oracle-blocks"));
    CHECK_THAT(message("quantum", Errc::NotFound), Contains("known: dense, a-shape"));
    CHECK_THAT(message("a-shape:windw=3", Errc::Usage), Contains("did you mean 'window'"));
    CHECK_THAT(message("dense:sink=3", Errc::Usage), Contains("takes no parameter"));
    CHECK_THAT(message("a-shape:window=0", Errc::Usage), Contains("1 to 1048576"));
    CHECK_THAT(message("a-shape:window=2.5", Errc::Usage), Contains("whole number"));
    CHECK_THAT(message("a-shape:window=many", Errc::Usage), Contains("not a number"));
    CHECK_THAT(message("a-shape:window=nan", Errc::Usage), Contains("not a number"));
    CHECK_THAT(message("a-shape:window", Errc::Usage), Contains("name=value"));
    CHECK_THAT(message("a-shape:sink=1,sink=2", Errc::Usage), Contains("twice"));
    CHECK_THAT(message("oracle-blocks:block=96", Errc::Usage), Contains("64 to 128 in steps of 64"));
    CHECK_THAT(message("oracle-blocks:density=1.5", Errc::Usage), Contains("0 to 1"));
    CHECK_THAT(message("antidiagonal:stride=12", Errc::Usage), Contains("must divide"));
    CHECK_THAT(message("retrieval-heads:heads=6-5", Errc::Usage), Contains("layer.head"));
    CHECK_THAT(message("retrieval-heads:heads=6.5+", Errc::Usage), Contains("layer.head"));
    CHECK_THAT(message("retrieval-heads:heads=6.5,table=x", Errc::Usage), Contains("not both"));
    CHECK_THAT(message("retrieval-heads:table=/nowhere", Errc::NotFound), Contains("/nowhere"));
    CHECK_THAT(message("", Errc::NotFound), Contains("known:"));
}

TEST_CASE("nearest finds typing mistakes and parts of a name, not strangers", "[masks]") {
    const std::string_view words[] = {"sink", "window", "threshold"};
    CHECK(nearest("sinks", words) == "sink");
    CHECK(nearest("windo", words) == "window");
    CHECK(nearest("thresh", words) == "threshold");
    CHECK(nearest("block", words).empty());
}
