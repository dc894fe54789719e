#include "core/import/tensor_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refusePickle(const fs::path& file) {
    throw Error(
        Errc::Unsupported,
        "'" + file.string() +
            "' is a pickle (PyTorch's .bin, .pt and .pth are too), which runs code of its author "
            "when it is read: convert it where you trust it, with Python: import torch, "
            "safetensors.torch as st; st.save_file(torch.load('" +
            file.filename().string() + "', weights_only=True), 'tensors.safetensors')");
}

[[noreturn]] void refuseCompiled(const fs::path& file) {
    throw Error(Errc::Unsupported,
                "'" + file.string() +
                    "' is a compiled PyTorch program (.pt2, TorchScript): it holds code, not "
                    "tensors; run docs/dump_qkv.py on the model instead, it writes a safetensors "
                    "file of q, k and v that can be imported");
}

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return char(c >= 'A' && c <= 'Z' ? c + 32 : c); });
    return text;
}

}  // namespace

Index ForeignTensor::elements() const {
    Index n = 1;
    for (const Index s : shape) n *= s;
    return n;
}

std::string ForeignTensor::shapeText() const {
    std::string text = "[";
    for (const Index s : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(s);
    return text + "]";
}

TensorFormat tensorFormat(const fs::path& file) {
    std::error_code ec;
    if (!fs::exists(file, ec))
        throw Error(Errc::NotFound, "there is no file '" + file.string() + "'");
    if (fs::is_directory(file, ec))
        throw Error(Errc::Io,
                    "'" + file.string() +
                        "' is a directory: name the tensor files in it, or open a model's "
                        "directory with `sparsight capture`");
    std::ifstream in(file, std::ios::binary);
    std::array<char, 16> head{};
    in.read(head.data(), head.size());
    const std::string_view begin(head.data(), std::size_t(in.gcount()));
    if (begin.empty() && !in.eof()) throw Error(Errc::Io, "cannot read '" + file.string() + "'");
    const std::string ending = lower(file.extension().string());

    if (ending == ".pt2") refuseCompiled(file);
    if (begin.starts_with("\x93NUMPY")) return TensorFormat::Npy;
    if (begin.starts_with("\x89HDF\r\n\x1a\n")) return TensorFormat::Hdf5;
    if (begin.starts_with("PK\x03\x04") || begin.starts_with("PK\x05\x06"))
        return TensorFormat::Npz;
    // Protocols 2 to 5 begin so; older pickles are only known by their name.
    if ((begin.size() > 1 && begin[0] == '\x80' && begin[1] >= 2 && begin[1] <= 5) ||
        ending == ".pkl" || ending == ".pickle" || ending == ".pt" || ending == ".pth" ||
        ending == ".bin" || ending == ".ckpt")
        refusePickle(file);
    if (begin.starts_with("GGUF"))
        throw Error(Errc::Unsupported, "'" + file.string() +
                                           "' is a GGUF file: it holds a model's weights, not q "
                                           "and k; open the model's Hugging Face directory");
    // A safetensors header: its length, then JSON, which may begin with white space.
    if (begin.size() > 8) {
        std::uint64_t length = 0;
        for (unsigned i = 0; i < 8; ++i)
            length |= std::uint64_t(static_cast<unsigned char>(begin[i])) << (8 * i);
        const char first = begin[8];
        if (length >= 2 && length <= 100'000'000 &&
            (first == '{' || first == ' ' || first == '\n' || first == '\t' || first == '\r'))
            return TensorFormat::Safetensors;
    }
    throw Error(Errc::Unsupported,
                "'" + file.string() +
                    "' is not a file of tensors that can be imported: .safetensors, .npy, .npz and "
                    "HDF5 are");
}

std::vector<std::int64_t> readIntegers(TensorFile& file, std::size_t tensor) {
    const ForeignTensor& t = file.tensors().at(tensor);
    const bool isSigned = t.element == Element::Int;
    if (!isSigned && t.element != Element::UInt && t.element != Element::Raw16)
        throw Error(Errc::Format, "'" + file.path().string() + "': " + t.name + " is " + t.dtype +
                                      ", integers are needed");
    const Index n = t.elements();
    std::vector<std::byte> bytes(std::size_t(n * t.width));
    file.read(tensor, 0, n, bytes.data());
    std::vector<std::int64_t> out(std::size_t(n), 0);
    for (std::size_t i = 0; i < out.size(); ++i) {
        std::uint64_t word = 0;
        for (Index b = t.width - 1; b >= 0; --b)
            word = word << 8 |
                   std::to_integer<std::uint64_t>(bytes[i * std::size_t(t.width) + std::size_t(b)]);
        const int unused = int(64 - 8 * t.width);
        out[i] = isSigned ? std::int64_t(word << unused) >> unused : std::int64_t(word);
    }
    return out;
}

bool valueType(const ForeignTensor& tensor, bool rawIsBf16, kernels::DType& type) {
    switch (tensor.element) {
        case Element::F16:
            type = kernels::DType::F16;
            return true;
        case Element::BF16:
            type = kernels::DType::BF16;
            return true;
        case Element::F32:
        case Element::F64:
            type = kernels::DType::F32;
            return true;
        case Element::Raw16:
            type = kernels::DType::BF16;
            return rawIsBf16;
        default:
            return false;
    }
}

}  // namespace sparsight
