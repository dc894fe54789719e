#include "core/model/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/model/json_input.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

// Those of kind Other are named so that their files can be opened and their other tensors read.
constexpr StType kTypes[] = {
    {StDType::BOOL, "BOOL", 8},
    {StDType::U8, "U8", 8},
    {StDType::I8, "I8", 8},
    {StDType::F8_E4M3, "F8_E4M3", 8},
    {StDType::F8_E5M2, "F8_E5M2", 8},
    {StDType::F8_E8M0, "F8_E8M0", 8},
    {StDType::U16, "U16", 16},
    {StDType::I16, "I16", 16},
    {StDType::F16, "F16", 16},
    {StDType::BF16, "BF16", 16},
    {StDType::U32, "U32", 32},
    {StDType::I32, "I32", 32},
    {StDType::F32, "F32", 32},
    {StDType::U64, "U64", 64},
    {StDType::I64, "I64", 64},
    {StDType::F64, "F64", 64},
    {StDType::Other, "C64", 64},
    {StDType::Other, "F8_E4M3FNUZ", 8},
    {StDType::Other, "F8_E5M2FNUZ", 8},
    {StDType::Other, "F6_E2M3", 6},
    {StDType::Other, "F6_E3M2", 6},
    {StDType::Other, "F4", 4},
};

constexpr int kMaxDepth = 32;  // of ignored extra fields
constexpr std::size_t kMaxRank =
    64;  // a shape of millions of ones would cost memory and mean nothing

/// Takes the header event by event: a 100 MB header as a DOM would need gigabytes.
class HeaderReader : public json::json_sax_t {
public:
    HeaderReader(StHeader& out, const std::string& file) : m_out(out), m_file(file) {}

    bool start_object(std::size_t) override {
        ++m_depth;
        guardDepth();
        if (m_depth == 1) return true;
        if (m_depth == 2) {
            m_fields.clear();
            return true;
        }
        if (m_depth == 3 || m_depth == 4) wrongTypeUnlessExtra("an object");
        return true;
    }
    bool end_object() override {
        if (m_depth == 2 && !m_inMetadata) finishTensor();
        if (m_depth == 2) m_inMetadata = false;
        --m_depth;
        return true;
    }
    bool key(std::string& key) override {
        if (m_depth == 1) {
            if (!m_names.insert(key).second) fail("the name \"" + key + "\" occurs twice");
            m_inMetadata = key == "__metadata__";
            m_entry = {};
            m_entry.name = key;
        } else if (m_depth == 2) {
            if (!m_fields.insert(key).second) failTensor("the key \"" + key + "\" occurs twice");
            m_field = key;
        }
        return true;
    }
    bool start_array(std::size_t) override {
        if (m_depth == 0) fail("the header must be an object");
        if (m_depth == 1) failTensor("its entry must be an object");
        ++m_depth;
        guardDepth();
        if (m_depth == 3) {
            if (m_inMetadata || m_field == "dtype") wrongTypeUnlessExtra("an array");
        } else if (m_depth == 4) {
            wrongTypeUnlessExtra("a nested array");
        }
        return true;
    }
    bool end_array() override {
        --m_depth;
        return true;
    }
    bool string(std::string& value) override {
        if (m_depth <= 1) scalar("a string");
        if (m_depth == 2 && m_inMetadata)
            m_out.metadata[m_field] = value;
        else if (m_depth == 2 && m_field == "dtype")
            m_entry.dtypeName = value;
        else if (isList())
            wrongTypeUnlessExtra("a string");
        return true;
    }
    bool number_unsigned(std::uint64_t value) override {
        if (m_depth == 3 && isList()) {
            if (m_field == "shape") {
                if (m_entry.shape.size() == kMaxRank)
                    failTensor("more than " + std::to_string(kMaxRank) + " dimensions");
                if (value > std::uint64_t(std::numeric_limits<Index>::max()))
                    failTensor("the dimension " + std::to_string(value) + " is out of range");
                m_entry.shape.push_back(Index(value));
            } else {
                if (m_offsets.size() == 2) failTensor("data_offsets must hold two numbers");
                m_offsets.push_back(value);
            }
            return true;
        }
        return scalar("a number");
    }
    bool number_integer(std::int64_t) override { return scalar("a negative number"); }
    bool number_float(double, const std::string& text) override {
        return scalar("the number " + text.substr(0, 40) + " (whole and not negative expected)");
    }
    bool boolean(bool) override { return scalar("a boolean"); }
    bool null() override {
        if (m_depth == 1 && m_inMetadata) {  // "__metadata__": null
            m_inMetadata = false;
            return true;
        }
        return scalar("null");
    }
    bool binary(json::binary_t&) override { return scalar("binary data"); }
    bool parse_error(std::size_t position, const std::string&, const json::exception& e) override {
        fail("header is not JSON at byte " + std::to_string(position) + " (" + jsonComplaint(e) +
             ")");
    }

private:
    [[noreturn]] void fail(const std::string& rule) const {
        throw Error(Errc::Format, m_file + ": " + rule);
    }
    [[noreturn]] void failTensor(const std::string& rule) const {
        fail((m_inMetadata ? "__metadata__: " : "tensor \"" + m_entry.name + "\": ") + rule);
    }
    bool isList() const {
        return !m_inMetadata && (m_field == "shape" || m_field == "data_offsets");
    }
    /// A value that is none of those wanted: fine in extra fields of a tensor, an error elsewhere.
    void wrongTypeUnlessExtra(const std::string& found) const {
        if (m_inMetadata)
            failTensor("the value of \"" + m_field + "\" must be a string, not " + found);
        if (m_field == "dtype") failTensor("dtype must be a string, not " + found);
        if (isList()) failTensor(m_field + " must be a list of whole numbers, found " + found);
    }
    bool scalar(const std::string& found) const {
        if (m_depth == 0) fail("the header must be an object, not " + found);
        if (m_depth == 1) failTensor("its entry must be an object, not " + found);
        wrongTypeUnlessExtra(found);
        return true;
    }
    void guardDepth() const {
        if (m_depth > kMaxDepth)
            fail("header nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    void finishTensor() {
        for (const char* field : {"dtype", "shape", "data_offsets"})
            if (!m_fields.contains(field)) failTensor(std::string(field) + " is missing");
        const StType* type = findStType(m_entry.dtypeName);
        if (type == nullptr)
            failTensor("unknown dtype \"" + m_entry.dtypeName.substr(0, 40) + "\"");
        if (m_offsets.size() != 2) failTensor("data_offsets must hold two numbers");
        m_entry.dtype = type->dtype;
        m_entry.begin = m_offsets[0];
        m_entry.end = m_offsets[1];
        m_offsets.clear();
        m_out.entries.push_back(std::move(m_entry));
    }

    StHeader& m_out;
    const std::string& m_file;
    int m_depth = 0;
    bool m_inMetadata = false;
    std::string m_field;
    std::set<std::string> m_names, m_fields;
    StEntry m_entry;
    std::vector<std::uint64_t> m_offsets;
};

void checkSize(const StEntry& e, const std::string& where) {
    constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t bits = 1;
    const auto times = [&](std::uint64_t factor) {
        if (factor != 0 && bits > kMax / factor)
            throw Error(Errc::Format, where + "the size of its shape overflows 64 bits");
        bits *= factor;
    };
    for (const Index d : e.shape) times(std::uint64_t(d));
    times(findStType(e.dtypeName)->bits);
    if (bits % 8 != 0)
        throw Error(Errc::Format,
                    where + "its bits do not fill whole bytes (dtype " + e.dtypeName + ")");
    if (e.end - e.begin != bits / 8)
        throw Error(Errc::Format, where + "data_offsets span " + std::to_string(e.end - e.begin) +
                                      " bytes, but dtype and shape need " +
                                      std::to_string(bits / 8));
}

}  // namespace

const StType* findStType(std::string_view name) {
    const auto* at = std::find_if(std::begin(kTypes), std::end(kTypes),
                                  [&](const StType& t) { return name == t.name; });
    return at == std::end(kTypes) ? nullptr : at;
}

const StType* findStType(StDType dtype) {
    if (dtype == StDType::Other) return nullptr;
    return std::find_if(std::begin(kTypes), std::end(kTypes),
                        [&](const StType& t) { return dtype == t.dtype; });
}

StHeader parseStHeader(std::string_view text, std::uint64_t bufferBytes, const std::string& file) {
    StHeader header;
    // Two things that the JSON library lets pass: a byte order mark, and NUL as the end of the
    // text.
    if (text.starts_with("\xef\xbb\xbf") || text.find('\0') != std::string_view::npos)
        throw Error(Errc::Format, file + ": header is not JSON (byte order mark or NUL byte)");
    HeaderReader reader(header, file);
    json::sax_parse(text.begin(), text.end(), &reader);

    std::sort(header.entries.begin(), header.entries.end(), [](const StEntry& a, const StEntry& b) {
        return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    std::uint64_t at = 0;
    for (const StEntry& e : header.entries) {
        const std::string where = file + ": tensor \"" + e.name + "\": ";
        if (e.end < e.begin)
            throw Error(Errc::Format, where + "data_offsets end at " + std::to_string(e.end) +
                                          ", before they begin at " + std::to_string(e.begin));
        if (e.begin != at)
            throw Error(Errc::Format, where + "begins at byte " + std::to_string(e.begin) +
                                          " of the data, but the tensor before it ends at " +
                                          std::to_string(at) +
                                          (e.begin < at ? " (overlap)" : " (hole)"));
        checkSize(e, where);
        at = e.end;
    }
    if (at != bufferBytes)
        throw Error(
            Errc::Format,
            file + ": the tensors need " + std::to_string(at) + " bytes of data, the file has " +
                std::to_string(bufferBytes) +
                (at > bufferBytes ? ": it is truncated, download it again" : ": trailing bytes"));
    return header;
}

}  // namespace sparsight
