#include <unistd.h>
#include <catch2/catch.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/model/config.h"
#include "core/probe/haystack.h"
#include "core/probe/needle.h"
#include "kernels/base/error.h"

using namespace sparsight;

namespace {

std::shared_ptr<const Tokenizer> bookworm() {
    static const auto t = Tokenizer::load(resolveModel("bookworm"));
    return t;
}

std::string spelled(const NeedlePrompt& p, TokenSpan span) {
    return p.fullText.substr(std::size_t(p.encoding.offsets[std::size_t(span.begin)].byteBegin),
                             std::size_t(p.encoding.offsets[std::size_t(span.end - 1)].byteEnd -
                                         p.encoding.offsets[std::size_t(span.begin)].byteBegin));
}

/// What must hold of every needle prompt.
void checkPrompt(const NeedlePrompt& p, const NeedleSpec& spec, const Tokenizer& t) {
    CAPTURE(toString(spec));
    const auto length = Index(p.ids.size());
    CHECK(length <= spec.tokens);
    CHECK(double(length) >= 0.995 * double(spec.tokens));
    CHECK(p.fullText == p.text + p.answer);
    CHECK(t.encode(p.fullText).ids == p.ids);
    CHECK(t.encode(p.text).ids == p.promptIds);
    CHECK(p.truth.answer.begin == Index(p.promptIds.size()));
    CHECK(p.truth.answer.end == length);
    CHECK(p.truth.answerText.size() == 5);
    CHECK(p.answer == " " + p.truth.answerText);
    CHECK(p.truth.needleText.find(" is " + p.truth.answerText + ".") != std::string::npos);
    // The key occurs twice: in the needle and as the answer.
    const std::size_t first = p.fullText.find(p.truth.answerText);
    CHECK(p.fullText.find(p.truth.answerText, first + 1) == p.text.size() + 1);
    CHECK(p.fullText.find(p.truth.needleText) != std::string::npos);
    const std::string question = spelled(p, {p.truth.questionBegin, p.truth.answer.begin});
    CHECK(question.find("Question: what is the pass key of ") <= 1);
    CHECK(p.truth.generator == toString(spec));
}

}  // namespace

TEST_CASE("the probe's text form", "[probe]") {
    const NeedleSpec s = parseProbe("niah:tokens=4096,depth=0.25,seed=7,haystack=/a,b=c.txt");
    CHECK(s.tokens == 4096);
    CHECK(s.depth == 0.25);
    CHECK(s.seed == 7);
    CHECK(s.haystack == "/a,b=c.txt");
    CHECK(toString(s) == "niah:tokens=4096,depth=0.25,seed=7,haystack=/a,b=c.txt");
    CHECK(toString(parseProbe("niah")) == "niah:tokens=1500,depth=0.5,seed=1");
    CHECK(toString(parseProbe("niah:")) == toString(parseProbe("niah")));
    CHECK(parseProbe("niah:seed=18446744073709551615").seed == ~std::uint64_t{0});
    using Catch::Contains;
    CHECK_THROWS_WITH(parseProbe("naih"), Contains("naih") && Contains("did you mean niah"));
    CHECK_THROWS_WITH(parseProbe("niah:token=5"),
                      Contains("\"token\"") && Contains("did you mean tokens"));
    CHECK_THROWS_WITH(parseProbe("niah:depth=1.5"), Contains("depth") && Contains("1.5"));
    CHECK_THROWS_WITH(parseProbe("niah:depth=nan"), Contains("depth"));
    CHECK_THROWS_WITH(parseProbe("niah:tokens=-3"), Contains("tokens"));
    CHECK_THROWS_WITH(parseProbe("niah:tokens=10x"), Contains("10x"));
    CHECK_THROWS_WITH(parseProbe("niah:tokens"), Contains("no value"));
    CHECK_THROWS_WITH(parseProbe("niah:seed=1,seed=2"), Contains("twice"));
    CHECK_THROWS_WITH(parseProbe("niah:seed=1,"), Contains("comma"));
}

TEST_CASE("needle prompts have the asked length and a known truth", "[probe]") {
    const auto t = bookworm();
    for (const Index tokens : {128, 200, 257, 777, 1500, 4096})
        for (const double depth : {0.0, 0.1, 0.5, 0.93, 1.0})
            for (const std::uint64_t seed : {1, 2}) {
                const NeedleSpec spec{tokens, depth, seed, {}};
                const NeedlePrompt p = makeNeedlePrompt(spec, *t);
                checkPrompt(p, spec, *t);
                // This tokenizer has a token per digit, and a space of its own before them.
                CHECK(p.truth.needle.size() == 5);
                CHECK(spelled(p, p.truth.needle) == p.truth.answerText);
                CHECK(p.truth.answer.size() == 6);
                // Depth counts sentences, which differ in length.
                const double place = double(p.truth.needle.begin) / double(p.truth.questionBegin);
                if (tokens >= 777) CHECK(std::abs(place - depth) < 0.1);
            }
}

TEST_CASE("needle prompts are deterministic, and the seed changes all of them", "[probe]") {
    const auto t = bookworm();
    const NeedleSpec spec{1500, 0.35, 1, {}};
    CHECK(makeNeedlePrompt(spec, *t).fullText == makeNeedlePrompt(spec, *t).fullText);
    std::set<std::string> keys, texts;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        const NeedlePrompt p = makeNeedlePrompt({300, 0.5, seed, {}}, *t);
        keys.insert(p.truth.answerText);
        texts.insert(p.fullText.substr(0, 60));
    }
    CHECK(keys.size() == 8);
    CHECK(texts.size() == 8);
}

TEST_CASE("long needle prompts", "[probe]") {
    const NeedleSpec spec{16384, 0.35, 3, {}};
    checkPrompt(makeNeedlePrompt(spec, *bookworm()), spec, *bookworm());
}

TEST_CASE("a needle prompt in the making can be stopped", "[probe]") {
    int asked = 0;
    const Job job({}, [&] { return ++asked > 3; });
    CHECK_THROWS_AS(makeNeedlePrompt(NeedleSpec(), *bookworm(), job), Cancelled);
    CHECK(asked == 4);
}

TEST_CASE("the needle's tokens under other tokenizers", "[probe]") {
    const std::string kind = GENERATE("llama3", "gpt2", "qwen2", "roberta");
    const auto t = Tokenizer::load(std::string(SPARSIGHT_TEST_DATA) + "/parity/tokenizers/" + kind);
    const NeedlePrompt p = makeNeedlePrompt({2000, 0.4, 5, {}}, *t);
    CAPTURE(kind);
    CHECK(p.ids.size() <= 2000);
    CHECK(p.ids.size() >= 1990);
    // Whole tokens only, so a space that is part of the first digits' token comes along.
    const std::string needle = spelled(p, p.truth.needle);
    CHECK((needle == p.truth.answerText || needle == " " + p.truth.answerText));
    CHECK(p.encoding.special.back() == 0);  // roberta's </s> would end what is to be continued
}

TEST_CASE("a text file as haystack", "[probe]") {
    const auto file = std::filesystem::temp_directory_path() /
                      ("sparsight_haystack_" + std::to_string(getpid()) + ".txt");
    std::ofstream(file) << "CHAPTER I.\n\nMr. Green walked to the \xe2\x80\x9cOld "
                           "Mill.\xe2\x80\x9d He was late! Was he?\n"
                           "The river rose, and nobody knew why; the bells rang all night long.";
    const NeedleSpec spec{1000, 0.5, 4, file.string()};
    const NeedlePrompt p = makeNeedlePrompt(spec, *bookworm());
    checkPrompt(p, spec, *bookworm());
    CHECK(p.fullText.find("The river rose") != std::string::npos);
    std::ofstream(file) << "  \n ";
    CHECK_THROWS_AS(makeNeedlePrompt(spec, *bookworm()), Error);
    std::ofstream(file) << "caf\xe9";
    CHECK_THROWS_WITH(makeNeedlePrompt(spec, *bookworm()), Catch::Contains("UTF-8"));
    std::filesystem::remove(file);
    CHECK_THROWS_WITH(makeNeedlePrompt(spec, *bookworm()), Catch::Contains("does not exist"));
    CHECK_THROWS_WITH(makeNeedlePrompt({20, 0.5, 1, {}}, *bookworm()), Catch::Contains("too few"));
}

TEST_CASE("sentences, by hand", "[probe]") {
    const std::string text =
        "Title\n\nMr. A went (home.) \"Why?!\" she said. It cost 3.50 pounds... and more.\nNo end";
    const std::vector<std::string> expected = {
        "Title",      "\n\nMr. A went (home.)",  " \"Why?!\"",
        " she said.", " It cost 3.50 pounds...", " and more.",
        "\nNo end"};
    CHECK(splitSentences(text) == expected);
    CHECK(splitSentences("").empty());
    CHECK(splitSentences(" \n ").empty());
    CHECK(splitSentences("  a. ") == std::vector<std::string>{"  a."});
}

TEST_CASE("the built-in prose: a million sentences, no digits", "[probe]") {
    std::set<std::size_t> different;
    std::size_t digits = 0, badEnd = 0;
    for (std::uint64_t i = 0; i < 1000000; ++i) {
        const std::string s = proseSentence(1, i);
        different.insert(std::hash<std::string>{}(s));
        for (const char c : s) digits += c >= '0' && c <= '9';
        badEnd += s.back() != '.';
    }
    CHECK(digits == 0);
    CHECK(badEnd == 0);
    CHECK(different.size() > 900000);  // the short pattern repeats now and then
    CHECK(proseSentence(1, 77) == proseSentence(1, 77));
    CHECK(proseSentence(1, 77) != proseSentence(2, 77));
}

TEST_CASE("the copying row writes the needle's first token, not a lone space") {
    //                                  0  1  2  3  4  5  6
    const std::vector<std::int32_t> ids{9, 7, 8, 5, 3, 7, 8};
    NeedleTruth truth;
    truth.needle = {1, 3};
    truth.answer = {4, 7};
    CHECK(copyingRow(ids, truth) == 4);
    truth.answer = {5, 7};
    CHECK(copyingRow(ids, truth) == 4);
    truth.needle = {3, 4};  // never written: the answer's first row
    CHECK(copyingRow(ids, truth) == 4);
}
