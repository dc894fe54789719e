#include <unistd.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/model/chat_template.h"
#include "kernels/base/error.h"

using namespace sparsight;
using Json = nlohmann::ordered_json;

namespace {

const std::string kData = std::string(SPARSIGHT_TEST_DATA) + "/chat_templates/";
const Json kTokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
const Json kHello = Json::parse(R"([{"role": "user", "content": "hi"}])");

std::string readAll(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    REQUIRE(in);
    return {std::istreambuf_iterator<char>(in), {}};
}

std::string rendered(const std::string& source, const Json& messages = kHello) {
    return ChatTemplate(source, kTokens, "test").render(messages);
}

}  // namespace

TEST_CASE("templates of the families render as in transformers", "[chat]") {
    const Json golden = Json::parse(readAll(kData + "golden.json"));
    REQUIRE(golden.size() >= 96);
    for (const Json& g : golden) {
        const auto file = g["template"].get<std::string>();
        CAPTURE(file, g["chat"].get<std::string>());
        const ChatTemplate t(readAll(kData + file), kTokens, file);
        const bool prompt = g["addGenerationPrompt"].get<bool>();
        if (g.contains("text"))
            CHECK(t.render(g["messages"], prompt) == g["text"].get<std::string>());
        else
            CHECK_THROWS_AS(t.render(g["messages"], prompt), Error);
    }
}

TEST_CASE("white space control, by hand", "[chat]") {
    CHECK(rendered("a\n  {% if true %}\n b\n  {% endif %}\nc\n") == "a\n b\nc");
    CHECK(rendered("a  {% if true %}b{% endif %}") == "a  b");
    CHECK(rendered("a \n {%- if true -%} \n b {%- endif %}\n c") == "ab c");
    CHECK(rendered("{{ 'x' }}\n{{ 'y' }}") == "x\ny");
    CHECK(rendered("a\n {# note #}\nb") == "a\nb");
    CHECK(rendered("  {%+ if true %}x{% endif +%}\ny") == "  x\ny");
}

TEST_CASE("booleans count as numbers", "[chat]") {
    CHECK(rendered(
              "{{ true + 1 }} {{ 3 * false }} {{ 7 // true }} {{ true > 0.5 }} {{ true|int }}") ==
          "2 0 7 True 1");
}

TEST_CASE("what is beyond the subset is refused with its line", "[chat]") {
    const auto refused = [](const char* source, const char* word) {
        CHECK_THROWS_WITH(rendered(source), Catch::Contains(word) && Catch::Contains("line 2") &&
                                                Catch::Contains("not supported"));
    };
    refused("\n{% include 'x' %}", "include");
    refused("\n{{ messages | groupby('role') }}", "groupby");
    refused("\n{{ 3 is divisibleby 2 }}", "divisibleby");
    refused("\n{{ lipsum() }}", "lipsum");
    refused("\n{{ 1 < 2 < 3 }}", "chains");
    CHECK_THROWS_WITH(rendered("{{ raise_exception('no system role') }}"),
                      Catch::Contains("no system role"));
    CHECK_THROWS_WITH(rendered("{% if true %}"), Catch::Contains("endif"));
    CHECK_THROWS_WITH(rendered("{{ 'a }}"), Catch::Contains("not closed"));
    CHECK_THROWS_WITH(rendered("{{ nothing.at.all }}"), Catch::Contains("undefined"));
    CHECK_THROWS_WITH(rendered("{{ 1 // 0 }}"), Catch::Contains("zero"));
    CHECK_THROWS_WITH(rendered("{% for i in range(1000000000) %}{% endfor %}"),
                      Catch::Contains("too long"));
    CHECK_THROWS_WITH(rendered("{{ " + std::string(500, '(') + "1" + std::string(500, ')') + " }}"),
                      Catch::Contains("nested"));
    for (const char* grow : {"x ~ x", "[x, x]", "x.replace('a', x)", "{'k': x, 'l': x}"})
        CHECK_THROWS_AS(
            rendered("{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set x = "
                     "ns.x %}{% set ns.x = " +
                     std::string(grow) + " %}{% endfor %}{{ ns.x }}"),
            Error);
    CHECK_THROWS_WITH(rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
                      Catch::Contains("too deeply"));
    CHECK_THROWS_WITH(rendered("{{ 9223372036854775807 }}"), Catch::Contains("too long"));
}

TEST_CASE("the template of a directory", "[chat]") {
    const auto directory =
        std::filesystem::temp_directory_path() / ("sparsight_chat_" + std::to_string(getpid()));
    std::filesystem::create_directories(directory);
    struct Remove {
        std::filesystem::path path;
        ~Remove() { std::filesystem::remove_all(path); }
    } remove{directory};
    const auto write = [&](const char* name, const std::string& text) {
        std::ofstream(directory / name, std::ios::binary) << text;
    };
    const std::string chat = R"([{"role": "user", "content": "hi"}])";
    CHECK_FALSE(ChatTemplate::exists(directory));
    CHECK_THROWS_WITH(chatPrompt(directory, chat, "chat.json"),
                      Catch::Contains("no chat template"));
    write(
        "tokenizer_config.json",
        R"({"bos_token": {"content": "<b>"}, "chat_template": "{{ bos_token }}{{ messages[0].content }}"})");
    CHECK(ChatTemplate::exists(directory));
    CHECK(chatPrompt(directory, chat, "chat.json") == "<b>hi");
    CHECK(chatPrompt(directory, "{\"messages\": " + chat + "}", "chat.json") == "<b>hi");
    write(
        "tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "named"}]})");
    CHECK(chatPrompt(directory, chat, "chat.json") == "named");
    write("chat_template.json", R"({"chat_template": "from json"})");
    CHECK(chatPrompt(directory, chat, "chat.json") == "from json");
    write("chat_template.jinja", "from jinja");
    CHECK(chatPrompt(directory, chat, "chat.json") == "from jinja");

    CHECK_THROWS_WITH(chatPrompt(directory, "[]", "chat.json"),
                      Catch::Contains("list of messages"));
    CHECK_THROWS_WITH(chatPrompt(directory, R"([{"role": "user"}])", "chat.json"),
                      Catch::Contains("message 1") && Catch::Contains("chat.json"));
    CHECK_THROWS_WITH(chatPrompt(directory, "{", "chat.json"), Catch::Contains("not JSON"));
}
