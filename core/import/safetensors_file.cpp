#include <cstring>

#include "core/import/tensor_file.h"
#include "core/model/safetensors.h"
#include "core/model/safetensors_header.h"

namespace sparsight {
namespace {

Element elementOf(StDType type) {
    switch (type) {
        case StDType::F16:
            return Element::F16;
        case StDType::BF16:
            return Element::BF16;
        case StDType::F32:
            return Element::F32;
        case StDType::F64:
            return Element::F64;
        case StDType::U16:
            return Element::Raw16;
        case StDType::I8:
        case StDType::I16:
        case StDType::I32:
        case StDType::I64:
            return Element::Int;
        case StDType::BOOL:
        case StDType::U8:
        case StDType::U32:
        case StDType::U64:
            return Element::UInt;
        default:
            return Element::Other;
    }
}

class SafetensorsFile final : public TensorFile {
public:
    explicit SafetensorsFile(const std::filesystem::path& file)
        : TensorFile(file), m_file(SafeTensors::openFile(file)) {
        m_metadata = m_file.metadata();
        for (const auto& [name, tensor] : m_file.tensors()) {
            ForeignTensor t;
            t.name = name;
            t.dtype = tensor.dtypeName;
            t.element = elementOf(tensor.dtype);
            t.shape = tensor.shape;
            if (const StType* type = findStType(tensor.dtype)) t.width = Index(type->bits / 8);
            m_tensors.push_back(std::move(t));
            m_bytes.push_back(tensor.bytes);
        }
    }
    void read(std::size_t tensor, Index first, Index count, std::byte* out) override {
        const auto width = std::size_t(m_tensors.at(tensor).width);
        const auto part =
            m_bytes[tensor].subspan(std::size_t(first) * width, std::size_t(count) * width);
        if (!part.empty()) std::memcpy(out, part.data(), part.size());
    }

private:
    SafeTensors m_file;
    std::vector<std::span<const std::byte>> m_bytes;
};

}  // namespace

std::unique_ptr<TensorFile> openSafetensorsFile(const std::filesystem::path& file) {
    return std::make_unique<SafetensorsFile>(file);
}

}  // namespace sparsight
