#include <time.h>

#include <filesystem>

#include "app/bench/bench.h"
#include "core/model/config.h"
#include "core/model/tokenizer.h"
#include "core/probe/needle.h"

namespace sparsight::bench {
namespace {

constexpr std::size_t kTexts = 64, kBytes = 64u << 10;

/// Texts of English sentences of the built-in grammar.
std::vector<std::string> prose() {
    std::vector<std::string> texts(kTexts);
    std::uint64_t sentence = 0;
    for (std::string& text : texts)
        while (text.size() < kBytes) text += proseSentence(1, sentence++) + " ";
    return texts;
}

/// CPU time of this thread: the speed of a core, whatever else the machine does.
double threadMs() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * double(t.tv_sec) + 1e-6 * double(t.tv_nsec);
}

}  // namespace

void addTokenize(std::vector<Operation>& operations, const std::string& filter) {
    struct Kind {
        std::string name;
        std::filesystem::path path;
    };
    std::vector<Kind> kinds{{"bookworm", resolveModel("bookworm")}};
    // Those of the tests, where the program runs beside its sources.
    for (const char* name : {"llama3", "gemma", "t5", "bert_uncased"})
        if (const std::filesystem::path path =
                std::filesystem::path(SPARSIGHT_TEST_DATA "/parity/tokenizers") / name;
            std::filesystem::exists(path))
            kinds.push_back({name, path});
    std::shared_ptr<const std::vector<std::string>> texts;
    for (const Kind& kind : kinds) {
        Operation op;
        op.id = "tokenize-" + kind.name;
        if (op.id.find(filter) == std::string::npos) continue;
        if (!texts) texts = std::make_shared<const std::vector<std::string>>(prose());
        const auto tokenizer = Tokenizer::load(kind.path);
        op.title = "text to token ids, " + tokenizer->summary() + ", one thread, CPU time";
        op.input = "64 texts of 64 KiB of generated English";
        for (const std::string& text : *texts) op.bytes += double(text.size());
        op.milliseconds = [tokenizer, texts] {
            const double begin = threadMs();
            for (const std::string& text : *texts) tokenizer->encode(text);
            return threadMs() - begin;
        };
        // Byte-level tokens say all of a text: there and back it must be the same.
        if (kind.name == "bookworm" || kind.name == "llama3")
            op.error = [tokenizer, texts] {
                const std::string& text = texts->front();
                return tokenizer->decode(tokenizer->encode(text, false).ids) == text ? 0.0 : 1.0;
            };
        operations.push_back(std::move(op));
    }
}

}  // namespace sparsight::bench
