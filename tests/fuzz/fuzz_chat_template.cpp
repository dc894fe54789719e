// A chat template, rendered for a conversation.
#include <nlohmann/json.hpp>

#include "core/model/chat_template.h"
#include "fuzz.h"

using namespace sparsight;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto chat = nlohmann::ordered_json::parse(
        R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "h\u00e9"},
            {"role": "assistant", "content": [{"type": "text", "text": "x"}]}])");
    expectErrorOrNothing([&] {
        ChatTemplate({reinterpret_cast<const char*>(data), size}, {{"bos_token", "<s>"}}, "fuzz")
            .render(chat);
    });
    return 0;
}
