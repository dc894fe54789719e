#include <algorithm>
#include <iostream>

#include "app/cli/command.h"
#include "sessions/analysis.h"

namespace sparsight::cli {
namespace {

struct Options {
    std::string session, capture, layer, rows;
    Index head = 0, count = 10;
};

/// "17" or "17-20", both ends counted; "last" is the last row.
TokenSpan parseRowSpan(const std::string& text, Index all) {
    const auto fail = [&]() -> Error {
        return {Errc::Usage, "--row '" + text +
                                 "' is not of the form 17, 17-20 or last (rows of this layer: 0.." +
                                 std::to_string(all - 1) + ")"};
    };
    if (text == "last") return {all - 1, all};
    const auto number = [&](const std::string& part) {
        if (part.empty() || part.size() > 10 ||
            !std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; }))
            throw fail();
        return Index(std::stoll(part));
    };
    const auto dash = text.find('-');
    const Index first = number(text.substr(0, dash));
    const Index last = dash == text.npos ? first : number(text.substr(dash + 1));
    if (last < first || last >= all) throw fail();
    return {first, last + 1};
}

/// The characters of a key, or its place in an image; "" where they are not known.
std::string keyText(const sessions::CaptureInfo& capture, Index layer, Index key) {
    if (capture.image) {
        const Index patch = key - capture.image->classTokens;
        return patch < 0 ? "class token"
                         : "patch " + std::to_string(patch / capture.image->cols) + "," +
                               std::to_string(patch % capture.image->cols);
    }
    const bool decoder = layerShape(capture, layer).keys == Sequence::Decoder;
    const auto& offsets = decoder ? capture.decoderOffsets : capture.offsets;
    const std::string& text = decoder ? capture.decoderText : capture.promptText;
    if (key >= Index(offsets.size())) return {};
    const TokenOffset& at = offsets[std::size_t(key)];
    if (at.byteBegin < 0 || at.byteBegin > at.byteEnd || at.byteEnd > Index(text.size())) return {};
    return text.substr(std::size_t(at.byteBegin), std::size_t(at.byteEnd - at.byteBegin));
}

/// In quotes, on one line.
std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '\n')
            out += "\\n";
        else if (c == '\t')
            out += "\\t";
        else if (static_cast<unsigned char>(c) >= ' ')
            out += c;
    }
    return out + "\"";
}

void top(const Context& context, const Options& o) {
    const auto session = sessions::Session::open(o.session, sessions::OpenMode::ReadOnly);
    const auto capture = findCapture(*session, o.capture);
    const Index layer = parseLayer(o.layer, capture.config);
    chosenHeads(capture, {layer, o.head});
    const TokenSpan span = parseRowSpan(o.rows, layerShape(capture, layer).Nq);
    const Job job = context.job();
    Json list = Json::array();
    std::vector<std::vector<std::string>> table{
        {"row", "rank", "key", "token", "probability", "cumulative"}};
    bool stored = false;
    for (Index row = span.begin; row < span.end; ++row) {
        job.step(double(row - span.begin) / double(span.size()), "row " + std::to_string(row));
        const sessions::TopRow found =
            sessions::sessionTopRow(*session, capture, layer, o.head, row, o.count);
        stored = found.stored;
        Json keys = Json::array();
        double sum = 0;
        for (std::size_t i = 0; i < found.top.key.size(); ++i) {
            const Index key = found.top.key[i];
            const double p = double(found.top.p[i]);
            sum += p;
            const std::string text = keyText(capture, layer, key);
            keys.push_back(
                {{"key", key}, {"token", text}, {"probability", p}, {"cumulative", sum}});
            table.push_back({i == 0 ? std::to_string(row) : "", std::to_string(i + 1),
                             std::to_string(key), quoted(text), fixed(p, 6), fixed(sum, 6)});
        }
        list.push_back({{"row", row}, {"stored", found.stored}, {"keys", std::move(keys)}});
    }
    endProgress();
    if (context.json) {
        printJson(list);
        return;
    }
    printTable(table);
    std::cout << (stored ? "stored with the capture\n" : "computed from Q and K\n");
}

}  // namespace

void addTopCommand(CLI::App& app, Context& context) {
    const auto o = std::make_shared<Options>();
    auto* c = addCommand(app, context, "top", "The keys that a query row reads most",
                         [&context, o] { top(context, *o); });
    c->add_option("session", o->session, "Session folder")->required();
    c->add_option("--capture", o->capture, "Capture uuid or its beginning (default: the newest)");
    c->add_option("--layer", o->layer, "Layer, 3 or cross.0")->required();
    c->add_option("--head", o->head, "Query head")->required();
    c->add_option("--row", o->rows, "Query rows: 17, 17-20 or last")->required();
    c->add_option("-k,--keys", o->count,
                  "Keys a row: up to 64 are read where the capture stores them, more are computed")
        ->capture_default_str()
        ->check(CLI::Range(1, 1 << 20));
}

}  // namespace sparsight::cli
