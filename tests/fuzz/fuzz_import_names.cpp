// Names of foreign tensors. The first line is what a file's metadata says, the second a pattern
// for q ("" = by the names); every other line is a tensor: its name, then (after a bar) its axes.
#include <algorithm>
#include <charconv>

#include "core/import/tensor_map.h"
#include "fuzz.h"

using namespace sparsight;

namespace {

/// A file that is only names, types and shapes.
class NamedTensors final : public TensorFile {
public:
    NamedTensors(std::string_view metadata, std::string_view lines) : TensorFile("fuzz") {
        m_metadata["sparsight"] = std::string(metadata);
        while (!lines.empty() && m_tensors.size() < 16) {
            const std::string_view line = lines.substr(0, lines.find('\n'));
            lines.remove_prefix(std::min(lines.size(), line.size() + 1));
            const auto bar = line.rfind('|');
            ForeignTensor t;
            t.name = std::string(line.substr(0, bar));
            std::string_view axes = bar == line.npos ? line.substr(0, 0) : line.substr(bar + 1);
            t.element = axes.starts_with('i') ? Element::Int : Element::F32;
            t.dtype = t.element == Element::Int ? "I32" : "F32";
            t.width = 4;
            Index product = 1;
            while (!axes.empty()) {  // readers refuse shapes that overflow; so does this
                Index n = 0;
                const auto [end, error] =
                    std::from_chars(axes.data(), axes.data() + axes.size(), n);
                axes.remove_prefix(error == std::errc() ? std::size_t(end - axes.data()) : 1);
                if (error != std::errc() || n < 0 || (n > 0 && product > (Index(1) << 56) / n))
                    continue;
                product *= std::max<Index>(n, 1);
                if (t.shape.size() < 32) t.shape.push_back(n);
            }
            m_tensors.push_back(std::move(t));
        }
    }
    void read(std::size_t, Index, Index, std::byte*) override {
        require(false, "no value is read to make a plan");
    }
};

void checkName(const std::string& name) {
    const auto guess = guessName(name);
    if (!guess) return;
    // Braces of the name itself, and numbers of more digits than a layer has, make no good pattern.
    std::size_t digits = 0, most = 0;
    for (const char c : name) most = std::max(most, digits = c >= '0' && c <= '9' ? digits + 1 : 0);
    if (most <= 6 && name.find_first_of("{}") == std::string::npos) {
        checkPattern(guess->pattern);
        require(matchName(guess->pattern, name).has_value(), "a guessed pattern matches its name");
    }
    for (const std::string& other : patternsOf(Part(name.size() % kParts), guess->pattern))
        require(!other.empty(), "a pattern is not empty");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view input(reinterpret_cast<const char*>(data), size);
    const auto takeLine = [&] {
        const std::string_view line = input.substr(0, input.find('\n'));
        input.remove_prefix(std::min(input.size(), line.size() + 1));
        return line;
    };
    const std::string_view metadata = takeLine(), pattern = takeLine();
    expectErrorOrNothing([&] {
        auto file = std::make_unique<NamedTensors>(metadata, input);
        for (const ForeignTensor& t : file->tensors()) {
            checkName(t.name);
            expectErrorOrNothing([&] {
                checkPattern(pattern);
                matchName(pattern, t.name);
            });
        }
        std::vector<std::unique_ptr<TensorFile>> files;
        files.push_back(std::move(file));
        const TensorSet set(std::move(files));
        ImportOptions options;
        options.patterns[std::size_t(Part::Q)] = std::string(pattern);
        const ImportPlan plan = planImport(set, options);
        require(plan.rows.size() == set.entries().size(), "a row for every tensor");
        require(plan.problems.empty() != plan.layers.empty(), "layers, or a problem");
        for (const ImportLayer& layer : plan.layers)
            require(layer.map.pieces.empty()
                        ? !layer.q.pieces.empty() && !layer.k.pieces.empty()
                        : layer.q.pieces.empty() && layer.problem.d <= kMostMapKeys,
                    "a layer has q and k, or a map");
    });
    return 0;
}
