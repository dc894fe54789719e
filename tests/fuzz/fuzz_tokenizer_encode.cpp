// A text for one of the stored tokenizers. The first byte chooses which, and what is done: made
// UTF-8, read and decoded again; made UTF-8 and paired with itself; or read as it is (mostly not
// UTF-8).
#include <algorithm>
#include <vector>

#include "core/model/tokenizer.h"
#include "core/model/tokenizer/unicode.h"
#include "fuzz.h"

using namespace sparsight;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto tokenizers = [] {
        const char* elsewhere = std::getenv("SPARSIGHT_TEST_DATA");
        const std::filesystem::path folder =
            std::filesystem::path(elsewhere ? elsewhere : SPARSIGHT_TEST_DATA) /
            "parity/tokenizers";
        std::vector<std::filesystem::path> kinds;
        for (const auto& entry : std::filesystem::directory_iterator(folder))
            kinds.push_back(entry.path());
        std::sort(kinds.begin(), kinds.end());
        std::vector<std::shared_ptr<const Tokenizer>> all;
        for (const auto& kind : kinds) all.push_back(Tokenizer::load(kind));
        return all;
    }();
    if (size < 1) return 0;
    const Tokenizer& t = *tokenizers[data[0] % tokenizers.size()];
    const std::string_view raw(reinterpret_cast<const char*>(data + 1), size - 1);
    const std::size_t task = data[0] / tokenizers.size() % 3;
    if (task == 2) {
        expectErrorOrNothing([&] { t.encode(raw); });
        return 0;
    }
    const std::string s = text::lossyUtf8(raw);
    if (task == 0) {
        const Encoding e = t.encode(s);  // any text can be read
        for (const TokenOffset& o : e.offsets)
            require(
                o.byteBegin >= 0 && o.byteBegin <= o.byteEnd && std::size_t(o.byteEnd) <= s.size(),
                "offsets lie inside the text");
        t.decode(e.ids, false);
        return 0;
    }
    const Encoding pair = t.encodePair(s, s);
    require(pair.ids.size() >= 2 * t.encode(s, false).ids.size(), "a pair holds both texts");
    return 0;
}
