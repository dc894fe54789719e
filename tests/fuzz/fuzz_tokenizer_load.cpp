// tokenizer.json, or (first byte 0x0a, as such files begin) a SentencePiece model; what loads also
// reads a text.
#include <nlohmann/json.hpp>

#include "core/model/json_input.h"
#include "core/model/tokenizer/sentencepiece.h"
#include "core/model/tokenizer/stages.h"
#include "fuzz.h"

using namespace sparsight;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    expectErrorOrNothing([&] {
        const nlohmann::json file = input.starts_with('\n')
                                        ? sentencePieceAsJson(input, nullptr, "fuzz")
                                        : parseJson(input, "fuzz");
        const Tokenizer t(loadTokenizer(file, "fuzz"));
        const Encoding e = t.encode("a b\tThe 12\xc3\xa9\xe4\xb8\xad \xf0\x9f\x98\x80'll <s>\n");
        require(e.ids.size() == e.tokens.size() && e.ids.size() == e.offsets.size() &&
                    e.ids.size() == e.words.size() && e.ids.size() == e.special.size() &&
                    e.ids.size() == e.typeIds.size(),
                "one of each per token");
        t.decode(e.ids);
        for (const std::int32_t id : {0, 1, 300}) t.tokenText(id);
    });
    return 0;
}
