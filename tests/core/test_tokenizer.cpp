#include <unistd.h>
#include <catch2/catch.hpp>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/model/config.h"
#include "core/model/safetensors.h"
#include "core/model/tokenizer.h"
#include "core/model/tokenizer/bpe.h"
#include "core/model/tokenizer/regex.h"
#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

using namespace sparsight;
using nlohmann::json;

namespace {

const std::string kData = std::string(SPARSIGHT_TEST_DATA) + "/parity/tokenizers/";

json readJson(const std::string& path) {
    std::ifstream in(path);
    REQUIRE(in);
    return json::parse(in);
}

std::vector<std::array<Index, 2>> chars(const Encoding& e) {
    std::vector<std::array<Index, 2>> out;
    for (const TokenOffset& o : e.offsets) out.push_back({o.begin, o.end});
    return out;
}

/// Word numbers as the library reports them: null for added special tokens.
json words(const Encoding& e) {
    json out = json::array();
    for (const std::int32_t w : e.words) out.push_back(w < 0 ? json() : json(w));
    return out;
}

/// Byte position of every code point, and one more for the end.
std::vector<Index> bytePositions(const std::string& text) {
    std::vector<Index> at;
    for (std::size_t i = 0; i < text.size(); ++i)
        if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) at.push_back(Index(i));
    at.push_back(Index(text.size()));
    return at;
}

/// A small byte-level tokenizer to change in tests.
json small() {
    json vocab = json::object();
    for (int b = 0; b < 256; ++b) {
        std::string spelled;
        text::appendUtf8(spelled, text::byteToChar(static_cast<unsigned char>(b)));
        vocab[spelled] = b;
    }
    vocab["ab"] = 256;
    vocab["abc"] = 257;
    return {{"added_tokens", json::array()},
            {"normalizer", nullptr},
            {"pre_tokenizer",
             {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
            {"post_processor", nullptr},
            {"decoder", {{"type", "ByteLevel"}}},
            {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c"}}}}};
}

std::shared_ptr<const Tokenizer> load(const json& j) {
    // By process: tests of this program run beside each other.
    const auto file = std::filesystem::temp_directory_path() /
                      ("sparsight_tokenizer_" + std::to_string(getpid()) + ".json");
    struct Remove {
        std::filesystem::path path;
        ~Remove() { std::filesystem::remove(path); }
    } remove{file};
    std::ofstream(file) << j.dump();
    return Tokenizer::load(file);
}

Errc failure(const json& j, std::string& message) {
    try {
        load(j);
    } catch (const Error& e) {
        message = e.what();
        return e.code();
    }
    FAIL("no error");
    return Errc::Io;
}

}  // namespace

TEST_CASE("every golden string gives the library's ids, tokens and offsets", "[tokenizer]") {
    const std::string kind =
        GENERATE("llama3", "qwen2", "digits", "gpt2", "neox", "o200k", "roberta", "llama2",
                 "mistral", "gemma", "t5", "unigram_bytes", "bert_cased", "bert_uncased");
    const auto t = Tokenizer::load(kData + kind);
    const json golden = readJson(kData + kind + "/golden.json");
    CHECK(t->vocabSize() == golden["vocab_size"].get<Index>());
    REQUIRE(golden["single"].size() > 20);
    for (const json& g : golden["single"]) {
        const auto text = g["text"].get<std::string>();
        CAPTURE(kind, text);
        const Encoding e = t->encode(text);
        CHECK(e.ids == g["ids"].get<std::vector<std::int32_t>>());
        CHECK(e.tokens == g["tokens"].get<std::vector<std::string>>());
        CHECK(chars(e) == g["offsets"].get<std::vector<std::array<Index, 2>>>());
        CHECK(e.typeIds == g["type_ids"].get<std::vector<std::uint8_t>>());
        CHECK(e.special == g["special_mask"].get<std::vector<std::uint8_t>>());
        CHECK(words(e) == g["words"]);
        CHECK(t->encode(text, false).ids == g["ids_plain"].get<std::vector<std::int32_t>>());
        CHECK(t->decode(e.ids) == g["decoded"].get<std::string>());
        CHECK(t->decode(e.ids, false) == g["decoded_with_special"].get<std::string>());
        const std::vector<Index> at = bytePositions(text);
        for (const TokenOffset& o : e.offsets) {
            CHECK(o.byteBegin == at[std::size_t(o.begin)]);
            CHECK(o.byteEnd == at[std::size_t(o.end)]);
        }
    }
    for (const json& g : golden["pair"]) {
        const auto a = g["a"].get<std::string>(), b = g["b"].get<std::string>();
        CAPTURE(kind, a, b);
        const Encoding e = t->encodePair(a, b);
        CHECK(e.ids == g["ids"].get<std::vector<std::int32_t>>());
        CHECK(e.typeIds == g["type_ids"].get<std::vector<std::uint8_t>>());
        CHECK(chars(e) == g["offsets"].get<std::vector<std::array<Index, 2>>>());
        for (std::size_t i = 0; i < e.ids.size(); ++i) {  // bytes count in the token's own text
            if (g["sequence_ids"][i].is_null()) continue;
            const std::vector<Index> at = bytePositions(g["sequence_ids"][i] == 0 ? a : b);
            CHECK(e.offsets[i].byteBegin == at[std::size_t(e.offsets[i].begin)]);
            CHECK(e.offsets[i].byteEnd == at[std::size_t(e.offsets[i].end)]);
        }
    }
}

TEST_CASE("the sample model's tokenizer gives the stored ids", "[tokenizer]") {
    const auto t = Tokenizer::load(resolveModel("bookworm"));
    CHECK(t->summary() == "byte-level BPE, 4096 tokens");
    const json golden =
        readJson(std::string(SPARSIGHT_TEST_DATA) + "/bookworm/bookworm_golden.json");
    CHECK(Index(t->encode(golden["needle_prompt"].get<std::string>()).ids.size()) ==
          golden["n_tokens"].get<Index>());
    const auto text = golden["text"].get<std::string>();
    const Encoding e = t->encode(text);
    const std::vector<std::int32_t> stored = {
        0,    337,  260,  2093, 1351, 13,   589,  340,  505,  303,  322,  280, 596,  13,   323,
        602,  15,   654,  323,  1714, 714,  705,  737,  3700, 464,  871,  264, 1567, 2836, 330,
        367,  13,   431,  3700, 323,  602,  317,  398,  1358, 462,  1104, 594, 431,  260,  1871,
        71,   1369, 438,  339,  458,  1574, 13,   606,  311,  386,  73,   311, 1838, 402,  586,
        2788, 476,  356,  264,  1567, 2836, 13,   3410, 1136, 303,  1011, 344, 3784, 455,  260,
        1734, 78,   759,  13,   272,  468,  15,   303,  1399, 841,  323,  505, 464,  871,  317,
        15,   654,  323,  1224, 508,  3841, 14,   1305, 70,   1222, 13,   606, 311,  13,   283,
        303,  1399, 3581, 339,  323,  1701, 1490, 13,   615,  378,  2377, 586, 898,  3425, 618,
        260,  582,  1955, 13,   332,  1165, 716,  1238};
    REQUIRE(e.ids.size() >= stored.size());
    CHECK(std::vector<std::int32_t>(e.ids.begin(), e.ids.begin() + std::ptrdiff_t(stored.size())) ==
          stored);
    CHECK(t->decode(e.ids) == text);
    Index done = 0;  // the offsets cover the text without a gap
    for (std::size_t i = 1; i < e.ids.size(); ++i) {
        CHECK(e.offsets[i].byteBegin <= done);
        done = std::max(done, e.offsets[i].byteEnd);
    }
    CHECK(done == Index(text.size()));
}

TEST_CASE("added tokens: longest first, white space, whole words", "[tokenizer]") {
    json j = small();
    const auto added = [](int id, const char* content, bool single, bool left, bool right) {
        return json{{"id", id},        {"content", content}, {"single_word", single},
                    {"lstrip", left},  {"rstrip", right},    {"normalized", false},
                    {"special", false}};
    };
    j["added_tokens"] = {
        added(258, "<x>", false, false, false), added(259, "<x><y>", false, false, false),
        added(260, "<m>", false, true, true), added(261, "who", true, false, false)};
    const auto t = load(j);
    CHECK(t->encode("<x><y><x>").ids == std::vector<std::int32_t>{259, 258});
    const Encoding strip = t->encode("a  <m> b");
    CHECK(strip.ids == std::vector<std::int32_t>{'a', 260, 'b'});
    CHECK(strip.tokens[1] == "  <m> ");
    CHECK(chars(strip)[1] == std::array<Index, 2>{1, 7});
    CHECK(t->encode("who").ids == std::vector<std::int32_t>{261});
    CHECK(t->encode("whom").ids == std::vector<std::int32_t>{'w', 'h', 'o', 'm'});
    CHECK(t->encode("a<m> <m>b").ids == std::vector<std::int32_t>{'a', 260, 260, 'b'});
    // Numbered in the order of the list, whatever it says.
    j["added_tokens"] = {added(259, "<x>", false, false, false),
                         added(258, "<y>", false, false, false)};
    CHECK(load(j)->encode("<x><y>").ids == std::vector<std::int32_t>{258, 259});
}

TEST_CASE("split behaviours, by hand", "[tokenizer]") {
    struct Case {
        const char* behavior;
        bool invert;  ///< false: cut at each "-"; true: cut at what is not a letter
        std::vector<std::string> pieces;
    };
    const Case c = GENERATE(
        Case{"Removed", false, {"a", "b"}}, Case{"Isolated", false, {"a", "-", "-", "b", "-"}},
        Case{"Contiguous", false, {"a", "--", "b", "-"}},
        Case{"MergedWithPrevious", false, {"a-", "-", "b-"}},
        Case{"MergedWithNext", false, {"a", "-", "-b", "-"}}, Case{"Removed", true, {"a", "b"}},
        Case{"Isolated", true, {"a", "--", "b", "-"}},
        Case{"Contiguous", true, {"a", "--", "b", "-"}},
        Case{"MergedWithPrevious", true, {"a--", "b-"}},
        Case{"MergedWithNext", true, {"a", "--b", "-"}});
    json j = small();
    int id = 300;  // every piece that any cut could give is a token, so that the cuts show
    for (const char* piece :
         {"--", "a-", "b-", "-b", "--b", "a--", "-b-", "-a", "a--b", "--b-", "a--b-"})
        j["model"]["vocab"][piece] = id++;
    j["model"]["ignore_merges"] = true;
    const json pattern = c.invert ? json{{"Regex", "[a-z]"}} : json{{"String", "-"}};
    j["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", pattern}, {"behavior", c.behavior}, {"invert", c.invert}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    CAPTURE(c.behavior, c.invert);
    CHECK(load(j)->encode("a--b-").tokens == c.pieces);
}

TEST_CASE("normalised text keeps offsets into the original", "[tokenizer]") {
    json j = small();
    j["normalizer"] = {{"type", "NFC"}};
    const auto t = load(j);
    // e + combining acute becomes one character: its range is that of the e, what follows keeps its
    // own
    const Encoding e = t->encode("e\xcc\x81x");
    CHECK(e.ids == std::vector<std::int32_t>{0xc3, 0xa9, 'x'});
    CHECK(chars(e) == std::vector<std::array<Index, 2>>{{0, 1}, {0, 1}, {2, 3}});
    CHECK(e.offsets[2].byteBegin == 3);
    // Two marks in the wrong order, and a Hangul syllable in parts.
    CHECK(t->decode(t->encode("a\xcc\x81\xcc\xa3").ids) == "\xe1\xba\xa1\xcc\x81");
    CHECK(t->decode(t->encode("\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab").ids) == "\xed\x95\x9c");
}

TEST_CASE("normalisation equals ICU's own", "[tokenizer]") {
    // Characters that compose, decompose, reorder or are excluded from composition.
    const char32_t some[] = {U'a',   U'e',   0xe9,    0x301,  0x323,  0x308, 0x1e69, 0x307,
                             0x345,  0xac00, 0x1100,  0x1161, 0x11a8, 0x958, 0x93c,  0x915,
                             0x2126, 0xfb01, 0x1f600, 0x30ab, 0x3099, 0x212b};
    const auto made = [](text::Form form, const std::string& s) {
        std::string out;
        for (const text::Moving& m : text::normalForm(form, s)) text::appendUtf8(out, m.c);
        return out;
    };
    std::uint64_t seed = 7;
    for (int round = 0; round < 20000; ++round) {
        std::string s;
        for (int i = 0; i < 6; ++i) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            text::appendUtf8(s, some[(seed >> 33) % std::size(some)]);
        }
        for (const auto form :
             {text::Form::NFC, text::Form::NFD, text::Form::NFKC, text::Form::NFKD}) {
            const std::string n = made(form, s);
            REQUIRE(text::isNormalized(form, n));
            // Equivalent to the original: both have the same full decomposition.
            const auto full = form == text::Form::NFC || form == text::Form::NFD ? text::Form::NFD
                                                                                 : text::Form::NFKD;
            REQUIRE(made(full, n) == made(full, s));
        }
    }
}

TEST_CASE("a word of 100,000 letters takes no quadratic time", "[tokenizer]") {
    const auto t = Tokenizer::load(resolveModel("bookworm"));
    std::string word;
    for (int i = 0; i < 100000; ++i) word += char('a' + (i * 7 + i / 13) % 26);
    const auto start = std::chrono::steady_clock::now();
    const Encoding e = t->encode(word, false);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
    CHECK(t->decode(e.ids) == word);
    std::string spaces(100000, ' ');
    CHECK(t->decode(t->encode(spaces, false).ids) == spaces);
}

TEST_CASE("text that is not UTF-8 is refused with its place", "[tokenizer]") {
    const auto t = load(small());
    for (const char* bad :
         {"ab\xff", "ab\xc0\xaf", "ab\xed\xa0\x80", "ab\xe2\x82", "ab\x80", "ab\xf5\x80\x80\x80"})
        CHECK_THROWS_WITH(t->encode(bad), Catch::Contains("UTF-8") && Catch::Contains("byte 2"));
    // One U+FFFD for each maximal broken piece.
    CHECK(text::lossyUtf8("a\xe2\x82z\xff\xf0\x9f\x98") ==
          "a\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd");
    CHECK(t->decode(std::vector<std::int32_t>{0xe2, 'z', 9999}) == "\xef\xbf\xbdz");
}

TEST_CASE("patterns mean what they mean in Oniguruma", "[tokenizer]") {
    const auto ends = [](const char* pattern, const std::string& s) {
        return text::Regex(pattern, "test").find(s);
    };
    using M = std::vector<std::pair<std::size_t, std::size_t>>;
    CHECK(ends(R"(\s)", "\xe1\xa0\x8e") == M{});                 // U+180E is no white space
    CHECK(ends(R"(\s+)", "\xc2\x85\xe3\x80\x80") == M{{0, 5}});  // U+0085, U+3000 are
    CHECK(ends(R"([^\s]+)", "a\xe2\x80\x8b ") == M{{0, 4}});     // U+200B is not
    CHECK(ends(R"(\w+)", "e\xcc\x81-") == M{{0, 3}});            // marks belong to words
    CHECK(ends("(?i:'s)", "'\xc5\xbf") == M{{0, 3}});            // long s
    CHECK(ends("a*", "baac") == M{{0, 0}, {1, 3}, {4, 4}});  // empty match behind one is skipped
    CHECK(ends(R"([]a]+)", "]a[") == M{{0, 2}});
    CHECK(ends("[a-z&&[^b]]+", "abc") == M{{0, 1}, {2, 3}});  // intersection
    CHECK(ends("[^a-c[xy]]+", "axdy") == M{{2, 3}});          // union inside a negation
    CHECK(ends(R"([\W])", "e\xcc\x81-") == M{{3, 4}});        // marks are no \W either
    CHECK(ends("(?:ab){1,2}+c", "ababababc") == M{{0, 9}});   // a repetition, not possessive
    CHECK(ends("(?m)a.b", "a\nb") == M{{0, 3}});              // Ruby's m is PCRE2's s
    CHECK(ends(R"(\b)", "e\xcc\x81-") == M{{0, 0}, {3, 3}});  // not before a mark
    CHECK(ends("x*", "").empty());                            // nothing matches in nothing
    CHECK_THROWS_WITH(text::Regex("(", "here"), Catch::Contains("here"));
    CHECK_THROWS_WITH(text::Regex("[a", "here"), Catch::Contains("open class"));
    CHECK_THROWS_WITH(text::Regex(R"(\p{Han)", "here"), Catch::Contains("here"));
}

TEST_CASE("patterns cut where the library cuts", "[tokenizer]") {
    // Properties, POSIX names and escapes that PCRE2 has otherwise; make_tokenizer_regexes.py.
    const json golden = readJson(std::string(SPARSIGHT_TEST_DATA) + "/tokenizer_regexes.json");
    REQUIRE(golden["cases"].size() > 30);
    for (const json& c : golden["cases"]) {
        json j = small();
        j["pre_tokenizer"] = {{"type", "Split"},
                              {"pattern", {{"Regex", c["pattern"]}}},
                              {"behavior", "Isolated"},
                              {"invert", false}};
        j["model"] = {{"type", "WordLevel"}, {"vocab", {{"<unk>", 0}}}, {"unk_token", "<unk>"}};
        const auto t = load(j);
        for (std::size_t i = 0; i < golden["texts"].size(); ++i) {
            const auto text = golden["texts"][i].get<std::string>();
            CAPTURE(c["pattern"].dump(), text);
            CHECK(chars(t->encode(text)) ==
                  c["offsets"][i].get<std::vector<std::array<Index, 2>>>());
        }
    }
}

TEST_CASE("an empty chain of decoders joins without spaces, none with", "[tokenizer]") {
    json j = small();
    const std::vector<std::int32_t> ids{256, 257};
    j["decoder"] = nullptr;
    CHECK(load(j)->decode(ids) == "ab abc");
    j["decoder"] = {{"type", "Sequence"}, {"decoders", json::array()}};
    CHECK(load(j)->decode(ids) == "ababc");
}

TEST_CASE("what is not supported is refused by name", "[tokenizer]") {
    std::string message;
    const auto refused = [&](const char* part, const json& value, const char* name) {
        json j = small();
        j[part] = value;
        CHECK(failure(j, message) == Errc::Unsupported);
        CHECK_THAT(message, Catch::Contains(name) && Catch::Contains(part));
    };
    refused("model", {{"type", "Mystery"}, {"vocab", json::array()}}, "Mystery");
    refused("normalizer", {{"type", "Upcase"}}, "Upcase");
    refused("pre_tokenizer", {{"type", "Whitespaces"}}, "did you mean");
    refused("post_processor", {{"type", "Sepp"}}, "Sepp");
    refused("decoder", {{"type", "Zip"}}, "Zip");
    json j = small();
    j["model"]["dropout"] = 0.1;
    CHECK(failure(j, message) == Errc::Unsupported);
    CHECK_THAT(message, Catch::Contains("dropout"));
}

TEST_CASE("BPE without an unknown token drops, with one it fuses, by hand", "[tokenizer]") {
    json j = small();
    j["pre_tokenizer"] = nullptr;
    j["decoder"] = nullptr;
    j["model"] = {{"type", "BPE"},
                  {"vocab", {{"a", 0}, {"b", 1}, {"<unk>", 2}, {"<0xC3>", 3}, {"<0xA9>", 4}}},
                  {"merges", json::array()}};
    const auto tokens = [&](const char* text) { return load(j)->encode(text).tokens; };
    using T = std::vector<std::string>;
    CHECK(tokens("axyb") == T{"a", "b"});
    j["model"]["unk_token"] = "<unk>";
    CHECK(tokens("axyb") == T{"a", "<unk>", "<unk>", "b"});
    j["model"]["fuse_unk"] = true;
    CHECK(tokens("axyb") == T{"a", "<unk>", "b"});
    j["model"]["byte_fallback"] = true;
    CHECK(tokens("a\xc3\xa9") == T{"a", "<0xC3>", "<0xA9>"});
    CHECK(tokens("a\xc3\xbc") == T{"a", "<unk>"});  // not all of its bytes have tokens
    j["model"]["unk_token"] = "[gone]";
    CHECK_THROWS_WITH(tokens("x"), Catch::Contains("[gone]"));
}

TEST_CASE("Unigram takes the likeliest pieces, by hand", "[tokenizer]") {
    json j = small();
    j["pre_tokenizer"] = j["decoder"] = nullptr;
    j["model"] = json::parse(R"({"type": "Unigram", "unk_id": 0, "vocab": [
        ["<unk>", 0], ["a", -1], ["b", -1], ["ab", -2.5], ["ba", -1.5], ["aba", -2.6]]})");
    using T = std::vector<std::string>;
    CHECK(load(j)->encode("ab").tokens == T{"a", "b"});    // -2.0 beats -2.5
    CHECK(load(j)->encode("aba").tokens == T{"a", "ba"});  // -2.5 beats -2.6 and -3.0
    CHECK(load(j)->encode("axyb").tokens == T{"a", "xy", "b"});
    CHECK(load(j)->encode("axyb").ids == std::vector<std::int32_t>{1, 0, 2});
    j["model"]["unk_id"] = nullptr;
    CHECK_THROWS_WITH(load(j)->encode("x"), Catch::Contains("no unknown token"));
    std::string message;
    j["model"]["unk_id"] = 6;
    CHECK(failure(j, message) == Errc::Format);
}

TEST_CASE("labels keep the space that decoding a text takes off", "[tokenizer]") {
    const auto llama = Tokenizer::load(kData + "llama2");
    const Encoding e = llama->encode("the the", false);
    std::string joined;
    for (const std::int32_t id : e.ids) joined += llama->tokenText(id);
    CHECK(joined == " the the");
    const auto bert = Tokenizer::load(kData + "bert_uncased");
    for (const std::int32_t id : bert->encode("attention", false).ids)
        CHECK(bert->tokenText(id).find('#') == std::string::npos);
}

TEST_CASE("random pipelines give what the library gave", "[tokenizer]") {
    // Twenty tokenizers put together at random, 20 texts each; see make_tokenizer_pipelines.py.
    const json cases = readJson(std::string(SPARSIGHT_TEST_DATA) + "/tokenizer_pipelines.json");
    REQUIRE(cases.size() >= 20);
    for (const json& c : cases) {
        const auto t = load(c["tokenizer"]);
        for (const json& g : c["texts"]) {
            const auto text = g["a"].get<std::string>();
            CAPTURE(c["tokenizer"]["normalizer"].dump(), c["tokenizer"]["pre_tokenizer"].dump(),
                    text);
            const Encoding e =
                g.contains("b") ? t->encodePair(text, g["b"].get<std::string>()) : t->encode(text);
            CHECK(e.ids == g["ids"].get<std::vector<std::int32_t>>());
            CHECK(e.tokens == g["tokens"].get<std::vector<std::string>>());
            CHECK(chars(e) == g["offsets"].get<std::vector<std::array<Index, 2>>>());
            CHECK(e.typeIds == g["type_ids"].get<std::vector<std::uint8_t>>());
            CHECK(e.special == g["special_mask"].get<std::vector<std::uint8_t>>());
            CHECK(words(e) == g["words"]);
            CHECK(t->decode(e.ids) == g["decoded"].get<std::string>());
        }
    }
}

TEST_CASE("damaged tokenizer files are errors", "[tokenizer]") {
    std::string message;
    json j = small();
    j["model"]["merges"] = {"a"};
    CHECK(failure(j, message) == Errc::Format);
    j["model"]["merges"] = {"a b", "zz q"};
    CHECK(failure(j, message) == Errc::Format);
    CHECK(message.find("zz") != std::string::npos);
    j = small();
    j["model"]["vocab"]["huge"] = 2000000000u;
    CHECK(failure(j, message) == Errc::Format);
    j = small();
    j["model"]["vocab"]["negative"] = -1;
    CHECK(failure(j, message) == Errc::Format);
    j = small();
    j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", 3}, {"behavior", "Isolated"}};
    CHECK(failure(j, message) == Errc::Format);
    CHECK(failure(json::array(), message) == Errc::Format);
    CHECK(failure({{"a", 1}}, message) == Errc::Format);
    json deep = {{"type", "NFC"}};
    for (int i = 0; i < 30; ++i) deep = {{"type", "Sequence"}, {"normalizers", {deep}}};
    j = small();
    j["normalizer"] = deep;
    CHECK(failure(j, message) == Errc::Format);
    CHECK_THROWS_AS(Tokenizer::load("/nonexistent"), Error);
}

TEST_CASE("a SentencePiece model gives the sentencepiece library's ids", "[tokenizer]") {
    const std::string data = std::string(SPARSIGHT_TEST_DATA) + "/sentencepiece/";
    const std::string kind = GENERATE("bpe", "runs", "unigram");
    const auto t = Tokenizer::load(data + kind + ".model");
    const json golden = readJson(data + "golden.json")[kind];
    REQUIRE(golden.size() > 40);
    for (const json& g : golden) {
        const auto text = g["text"].get<std::string>();
        CAPTURE(kind, text);
        CHECK(t->encode(text, false).ids == g["ids"].get<std::vector<std::int32_t>>());
    }
    CHECK(t->encode("a").tokens.front() == "<s>");  // as Llama does when no config says otherwise
    CHECK(t->decode(t->encode("the long walk").ids) == "the long walk");
}

namespace {

/// A directory for one test, removed after it.
struct Directory {
    std::filesystem::path path = std::filesystem::temp_directory_path() /
                                 ("sparsight_tokenizer_dir_" + std::to_string(getpid()));
    Directory() {
        std::filesystem::remove_all(path);
        std::filesystem::create_directories(path);
    }
    ~Directory() { std::filesystem::remove_all(path); }
    void write(const char* name, const std::string& text) const {
        std::ofstream(path / name, std::ios::binary) << text;
    }
};

}  // namespace

TEST_CASE("sentencepiece.bpe.model counts as fairseq does", "[tokenizer]") {
    const std::string data = std::string(SPARSIGHT_TEST_DATA) + "/sentencepiece/";
    const Directory directory;
    std::filesystem::copy(data + "unigram.model", directory.path / "sentencepiece.bpe.model");
    const json golden = readJson(data + "golden.json")["unigram"];
    const std::int32_t pieces = std::int32_t(Tokenizer::load(data + "unigram.model")->vocabSize());
    using Ids = std::vector<std::int32_t>;
    SECTION("XLM-RoBERTa, also without a tokenizer_config.json") {
        const auto t = Tokenizer::load(directory.path);
        for (const json& g : golden) {
            Ids expected;
            for (const json& id : g["ids"]) expected.push_back(id == 0 ? 3 : id.get<int>() + 1);
            CAPTURE(g["text"]);
            CHECK(t->encode(g["text"].get<std::string>(), false).ids == expected);
        }
        const Ids a = t->encode("long walk", false).ids, pair = t->encodePair("long walk", "").ids;
        CHECK(t->encode("").ids == Ids{0, 2});
        Ids both{0};
        both.insert(both.end(), a.begin(), a.end());
        both.insert(both.end(), {2, 2, 2});
        CHECK(pair == both);
        CHECK(t->vocabSize() == pieces + 2);
        // <pad> is 1, and the mask comes last and takes the space before it.
        CHECK(t->encode("<pad>", false).ids == Ids{1});
        CHECK(t->encode("long <mask>", false).ids.back() == pieces + 1);
        CHECK(t->encode("long <mask>", false).ids.size() ==
              t->encode("long", false).ids.size() + 1);
    }
    SECTION("CamemBERT") {
        directory.write("tokenizer_config.json", R"({"tokenizer_class": "CamembertTokenizer"})");
        const auto t = Tokenizer::load(directory.path);
        for (const json& g : golden) {
            Ids expected;
            for (const json& id : g["ids"]) expected.push_back(id == 0 ? 3 : id.get<int>() + 4);
            CHECK(t->encode(g["text"].get<std::string>(), false).ids == expected);
        }
        CHECK(t->encode("").ids == Ids{5, 6});
        CHECK(t->encode("<mask>", false).ids == Ids{pieces + 4});
    }
    SECTION("any other class is refused") {
        directory.write("tokenizer_config.json", R"({"tokenizer_class": "MBartTokenizer"})");
        CHECK_THROWS_WITH(Tokenizer::load(directory.path), Catch::Contains("MBartTokenizer"));
    }
}

TEST_CASE("vocab.json with merges.txt is the byte-level BPE that it was", "[tokenizer]") {
    const std::string kind = GENERATE("gpt2", "roberta", "qwen2");
    const json file = readJson(kData + kind + "/tokenizer.json");
    const json golden = readJson(kData + kind + "/golden.json");
    const Directory directory;
    std::string merges = "#version: 0.2\n";
    for (const json& m : file["model"]["merges"])
        merges += m.is_string() ? m.get<std::string>() + "\n"
                                : m[0].get<std::string>() + " " + m[1].get<std::string>() + "\n";
    json config = {{"tokenizer_class", kind == "gpt2"      ? "GPT2Tokenizer"
                                       : kind == "roberta" ? "RobertaTokenizer"
                                                           : "Qwen2Tokenizer"},
                   {"added_tokens_decoder", json::object()}};
    for (const json& a : file["added_tokens"])
        config["added_tokens_decoder"][std::to_string(a["id"].get<int>())] = a;
    directory.write("vocab.json", file["model"]["vocab"].dump());
    directory.write("merges.txt", merges);
    directory.write("tokenizer_config.json", config.dump());
    const auto t = Tokenizer::load(directory.path);
    for (const json& g : golden["single"]) {
        const auto text = g["text"].get<std::string>();
        CAPTURE(kind, text);
        const Encoding e = t->encode(text);
        CHECK(e.ids == g["ids"].get<std::vector<std::int32_t>>());
        CHECK(t->decode(e.ids) == g["decoded"].get<std::string>());
    }
    // As numbers, not as text: 99999 comes before 100000.
    const auto next = std::int32_t(t->vocabSize());
    config["added_tokens_decoder"]["100000"] = {{"content", "<later>"}};
    config["added_tokens_decoder"]["99999"] = {{"content", "<sooner>"}};
    directory.write("tokenizer_config.json", config.dump());
    const auto more = Tokenizer::load(directory.path);
    CHECK(more->encode("<sooner><later>", false).ids == std::vector{next, next + 1});
}

TEST_CASE("tiktoken ranks give the tiktoken library's ids", "[tokenizer]") {
    const std::string name = GENERATE("llama3", "qwen", "o200k");
    const std::string folder = std::string(SPARSIGHT_TEST_DATA) + "/tiktoken/";
    const auto t = Tokenizer::load(folder + name);
    const json golden = readJson(folder + "golden.json")[name];
    REQUIRE(golden.size() > 40);
    for (const json& g : golden) {
        const auto text = g["text"].get<std::string>();
        CAPTURE(name, text);
        const auto ids = g["ids"].get<std::vector<std::int32_t>>();
        CHECK(t->encode(text, false).ids == ids);
        CHECK(t->decode(ids, false) == g["decoded"].get<std::string>());
    }
    const Encoding hi = t->encode("hi");
    CHECK(hi.tokens.front() == (name == "llama3" ? "<|begin_of_text|>" : "h"));
}

TEST_CASE("damaged tiktoken files are errors", "[tokenizer]") {
    std::ifstream in(std::string(SPARSIGHT_TEST_DATA) + "/tiktoken/qwen/qwen.tiktoken");
    const std::string good{std::istreambuf_iterator<char>(in), {}};
    const auto says = [](const std::string& bytes, const char* part) {
        const auto file = std::filesystem::temp_directory_path() /
                          ("sparsight_" + std::to_string(getpid()) + ".tiktoken");
        std::ofstream(file) << bytes;
        std::string message;
        try {
            Tokenizer::load(file);
        } catch (const Error& e) {
            CHECK(e.code() == Errc::Format);
            message = e.what();
        }
        std::filesystem::remove(file);
        CHECK_THAT(message, Catch::Contains(part));
    };
    says(good + "YWJj\n", "line 501 is not a token in base64");
    says(good + "YWJj x\n", "line 501");
    says(good + "Y! 500\n", "line 501");
    says(good + "YWJj -1\n", "line 501");
    says(good + "YWJjZGVm 499\n", "rank 499 is given twice");
    says(good + "AA== 500\n", "rank 500 is given twice");
    says(good.substr(good.find('\n') + 1), "no token for the byte 0 alone");
    says("", "no token for the byte 0 alone");
    says(good.substr(good.find('\n') + 1) + "= 500\n", "no token for the byte 0 alone");
}

TEST_CASE("a broken SentencePiece model and an empty directory are errors", "[tokenizer]") {
    const Directory directory;
    CHECK_THROWS_WITH(Tokenizer::load(directory.path), Catch::Contains("merges.txt"));
    std::ifstream in(std::string(SPARSIGHT_TEST_DATA) + "/sentencepiece/bpe.model",
                     std::ios::binary);
    const std::string good{std::istreambuf_iterator<char>(in), {}};
    directory.write("tokenizer.model", good.substr(0, good.size() - 3));
    CHECK_THROWS_WITH(Tokenizer::load(directory.path), Catch::Contains("damaged"));
    directory.write("tokenizer.model", "");
    CHECK_THROWS_WITH(Tokenizer::load(directory.path), Catch::Contains("no pieces"));
}
