#include "core/import/npy.h"

#include <charconv>
#include <limits>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

/// The header's Python dict, e.g. {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class Dict {
public:
    Dict(std::string_view text, const std::string& where) : m_text(text), m_where(where) {}

    void parse(ForeignTensor& tensor) {
        expect('{');
        bool descr = false, order = false, shape = false;
        while (!take('}')) {
            const std::string key = quoted();
            expect(':');
            if (key == "descr" && !descr) {
                descr = true;
                if (peek() == '[')
                    throw Error(Errc::Unsupported,
                                m_where +
                                    " is an array of records; save its plain columns as arrays of "
                                    "their own");
                tensor.dtype = quoted();
            } else if (key == "fortran_order" && !order) {
                order = true;
                tensor.fortran = word() == "True";
            } else if (key == "shape" && !shape) {
                shape = true;
                tensor.shape = tuple();
            } else {
                fail("the key '" + key + "' is not expected");
            }
            if (!take(',') && peek() != '}') fail("a comma is missing");
        }
        if (!descr || !order || !shape) fail("descr, fortran_order or shape is missing");
    }

private:
    [[noreturn]] void fail(const std::string& why) const {
        throw Error(Errc::Format, m_where + ": its .npy header is damaged (" + why + ")");
    }
    char peek() {
        while (m_at < m_text.size() && (m_text[m_at] == ' ' || m_text[m_at] == '\n')) ++m_at;
        return m_at < m_text.size() ? m_text[m_at] : '\0';
    }
    bool take(char c) {
        if (peek() != c) return false;
        ++m_at;
        return true;
    }
    void expect(char c) {
        if (!take(c)) fail(std::string("'") + c + "' is missing");
    }
    std::string quoted() {
        const char quote = peek();
        if (quote != '\'' && quote != '"') fail("a quoted word is missing");
        const auto end = m_text.find(quote, m_at + 1);
        if (end == std::string_view::npos) fail("a quote is not closed");
        const std::string text(m_text.substr(m_at + 1, end - m_at - 1));
        m_at = end + 1;
        return text;
    }
    std::string word() {
        peek();
        std::string text;
        while (m_at < m_text.size() && ((m_text[m_at] >= 'a' && m_text[m_at] <= 'z') ||
                                        (m_text[m_at] >= 'A' && m_text[m_at] <= 'Z')))
            text += m_text[m_at++];
        if (text != "True" && text != "False") fail("True or False is missing");
        return text;
    }
    std::vector<Index> tuple() {
        expect('(');
        std::vector<Index> shape;
        Index product = 1;
        while (!take(')')) {
            peek();
            Index n = 0;
            const auto [end, error] =
                std::from_chars(m_text.data() + m_at, m_text.data() + m_text.size(), n);
            if (error != std::errc() || n < 0) fail("a dimension is not a number");
            if (n > 0 && product > (std::numeric_limits<Index>::max() >> 4) / n)
                fail("its shape is too large");
            product *= std::max<Index>(n, 1);
            m_at = std::size_t(end - m_text.data());
            shape.push_back(n);
            if (shape.size() > 32) fail("it has more than 32 dimensions");
            if (!take(',') && peek() != ')') fail("a comma is missing");
        }
        return shape;
    }

    std::string_view m_text;
    const std::string& m_where;
    std::size_t m_at = 0;
};

void setElement(ForeignTensor& t, const std::string& where) {
    const std::string& d = t.dtype;
    const auto unknown = [&]() -> Error {
        return {Errc::Unsupported, where + " has the type '" + d +
                                       "', which cannot be imported; save it as float16, float32 "
                                       "or float64, or bfloat16 as uint16"};
    };
    if (d.size() < 2) throw unknown();
    const char order = d[0], kind = d[1];
    if (kind == 'O')
        throw Error(Errc::Unsupported,
                    where +
                        " holds pickled Python objects, which run code of their author when they "
                        "are read; save a plain array (numpy.asarray(x, dtype='float32'))");
    Index width = 0;
    const auto [end, error] = std::from_chars(d.data() + 2, d.data() + d.size(), width);
    if (error != std::errc() || end != d.data() + d.size()) throw unknown();
    if (order == '>' && width > 1)
        throw Error(Errc::Unsupported,
                    where + " is big-endian ('" + d +
                        "'); save it little-endian: a.astype(a.dtype.newbyteorder('<'))");
    if (order != '<' && order != '|' && order != '>') throw unknown();
    t.width = width;
    if (kind == 'f' && width == 2)
        t.element = Element::F16;
    else if (kind == 'f' && width == 4)
        t.element = Element::F32;
    else if (kind == 'f' && width == 8)
        t.element = Element::F64;
    else if ((kind == 'u' || kind == 'V') && width == 2)
        t.element = Element::Raw16;
    else if (kind == 'i' && (width == 1 || width == 2 || width == 4 || width == 8))
        t.element = Element::Int;
    else if (kind == 'u' && (width == 1 || width == 4 || width == 8))
        t.element = Element::UInt;
    else if ((kind == 'b' || kind == 'c' || kind == 'S' || kind == 'U' || kind == 'V' ||
              kind == 'f' || kind == 'm' || kind == 'M') &&
             width >= 0 && width <= 1 << 20)
        t.element = Element::Other;  // may stand beside the tensors that are wanted
    else
        throw unknown();
    // numpy counts the characters of a text, not its bytes.
    if (kind == 'U') t.width = 4 * width;
}

}  // namespace

NpyHeader parseNpyHeader(std::span<const std::byte> begin, const std::string& where) {
    const auto byteAt = [&](std::size_t i) { return std::to_integer<std::size_t>(begin[i]); };
    const auto* text = reinterpret_cast<const char*>(begin.data());
    if (begin.size() < 10 || std::string_view(text, 6) != "\x93NUMPY")
        throw Error(Errc::Format, where + " is not a .npy array");
    const std::size_t version = byteAt(6);
    if (version < 1 || version > 3)
        throw Error(Errc::Unsupported, where + " is of .npy format version " +
                                           std::to_string(version) + "; versions 1 to 3 are read");
    const std::size_t start = version == 1 ? 10 : 12;
    if (begin.size() < start) throw Error(Errc::Format, where + ": the file ends in its header");
    std::size_t length = byteAt(8) | byteAt(9) << 8;
    if (version > 1) length |= byteAt(10) << 16 | byteAt(11) << 24;
    if (length > begin.size() - start)
        throw Error(Errc::Format,
                    where + ": the file ends in its header, or the header is over 64 KiB");
    NpyHeader header;
    Dict(std::string_view(text + start, length), where).parse(header.tensor);
    setElement(header.tensor, where);
    header.dataOffset = Index(start + length);
    return header;
}

}  // namespace sparsight
