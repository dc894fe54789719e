#include <algorithm>

#include "core/model/tokenizer/stages.h"

namespace sparsight::text {
namespace {

using Tokens = std::vector<std::string>;

void replaceAll(std::string& s, std::string_view from, std::string_view to) {
    if (from.empty()) return;
    for (std::size_t at = 0; (at = s.find(from, at)) != std::string::npos; at += to.size())
        s.replace(at, from.size(), to);
}

/// Joins English as WordPiece cut it.
void cleanUp(std::string& s) {
    constexpr std::pair<std::string_view, std::string_view> kRules[] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [from, to] : kRules) replaceAll(s, from, to);
}

Tokens apply(const ByteLevelDecoder&, Tokens tokens) {
    std::string bytes;
    for (const std::string& t : tokens) bytes += tokenBytes(t);
    return {lossyUtf8(bytes)};
}

Tokens apply(const MetaspaceDecoder& s, Tokens tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        std::string out;
        for (std::size_t at = 0; at < tokens[i].size();) {
            const CodePoint p = codePointAt(tokens[i], at);
            at += p.bytes;
            if (p.value != s.replacement)
                appendUtf8(out, p.value);
            else if (i > 0 || !s.dropFirst)
                out += ' ';
        }
        tokens[i] = std::move(out);
    }
    return tokens;
}

Tokens apply(const WordPieceDecoder& s, Tokens tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (i > 0) {
            if (tokens[i].starts_with(s.prefix))
                tokens[i].erase(0, s.prefix.size());
            else
                tokens[i].insert(0, " ");
        }
        if (s.cleanup) cleanUp(tokens[i]);
    }
    return tokens;
}

Tokens apply(const BpeDecoder& s, Tokens tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i)
        replaceAll(tokens[i], s.suffix, i + 1 == tokens.size() ? "" : " ");
    return tokens;
}

Tokens apply(const CtcDecoder& s, Tokens tokens) {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    Tokens out;
    for (std::string& t : tokens) {
        replaceAll(t, s.pad, "");
        if (s.cleanup) {
            cleanUp(t);
            replaceAll(t, s.delimiter, " ");
        }
        if (!t.empty()) out.push_back(std::move(t));
    }
    return out;
}

Tokens apply(const ByteFallbackDecoder&, Tokens tokens) {
    Tokens out;
    std::string bytes;
    const auto flush = [&] {
        if (bytes.empty()) return;
        if (firstInvalidUtf8(bytes) == std::string_view::npos)
            out.push_back(bytes);
        else
            out.insert(out.end(), bytes.size(), "\xef\xbf\xbd");
        bytes.clear();
    };
    const auto digit = [](char c) {
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                      : -1;
    };
    for (std::string& t : tokens) {
        if (t.size() == 6 && t.starts_with("<0x") && t[5] == '>' && digit(t[3]) >= 0 &&
            digit(t[4]) >= 0) {
            bytes += static_cast<char>(static_cast<unsigned char>(digit(t[3]) * 16 + digit(t[4])));
        } else {
            flush();
            out.push_back(std::move(t));
        }
    }
    flush();
    return out;
}

Tokens apply(const FuseDecoder&, Tokens tokens) {
    std::string all;
    for (const std::string& t : tokens) all += t;
    return {std::move(all)};
}

Tokens apply(const StripDecoder& s, Tokens tokens) {
    for (std::string& t : tokens) {
        std::size_t begin = 0, end = t.size();
        for (std::size_t k = 0; k < s.start && begin < end; ++k) {
            const CodePoint p = codePointAt(t, begin);
            if (p.value != s.content) break;
            begin += p.bytes;
        }
        for (std::size_t k = 0; k < s.stop && begin < end; ++k) {
            const CodePoint p = lastCodePoint(std::string_view(t).substr(begin, end - begin));
            if (p.value != s.content) break;
            end -= p.bytes;
        }
        t = t.substr(begin, end - begin);
    }
    return tokens;
}

Tokens apply(const ReplaceDecoder& s, Tokens tokens) {
    for (std::string& t : tokens) {
        std::string out;
        std::size_t done = 0;
        for (const auto& [begin, end] : s.pattern.find(t)) {
            out.append(t, done, begin - done).append(s.content);
            done = end;
        }
        t = out.append(t, done);
    }
    return tokens;
}

}  // namespace

std::vector<std::string> decodeTokens(const Decoder& stage, std::vector<std::string> tokens) {
    return std::visit([&](const auto& s) { return apply(s, std::move(tokens)); }, stage);
}

}  // namespace sparsight::text
