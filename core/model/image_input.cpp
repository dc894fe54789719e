#include "core/model/image_input.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/import/tensor_file.h"
#include "core/model/encoder_config.h"
#include "core/model/image_file.h"
#include "core/model/json_input.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

/// What preprocessor_config.json says, completed with the class's defaults.
struct Preprocess {
    bool resize = true, crop = false, rescale = true, normalise = true;
    Index height = 0, width = 0;  ///< 0: by the shortest edge
    Index shortest = 0;
    Index cropHeight = 0, cropWidth = 0;
    Resample filter = Resample::Bilinear;
    double factor = 1.0 / 255;
    double mean[3] = {0.5, 0.5, 0.5}, deviation[3] = {0.5, 0.5, 0.5};
};

[[noreturn]] void bad(const std::string& where, const std::string& key) {
    throw Error(Errc::Unsupported, where + ": " + key + " is not understood");
}

bool number(const json& j, const char* key, Index& out) {
    if (!j.contains(key) || !j[key].is_number_integer()) return false;
    out = j[key].get<Index>();
    return out >= 1 && out <= 16384;
}

void readSize(const json& j, const std::string& where, Preprocess& p) {
    Index n = 0;
    if (j.is_number_integer()) {
        n = j.get<Index>();
        if (n < 1 || n > 16384) bad(where, "size");
        // A lone number is the shortest edge for CLIP, both sides for ViT.
        if (p.shortest > 0)
            p.shortest = n;
        else
            p.height = p.width = n;
    } else if (j.is_object() && number(j, "shortest_edge", n) && !j.contains("longest_edge")) {
        p.shortest = n;
        p.height = p.width = 0;
    } else if (j.is_object() && number(j, "height", p.height) && number(j, "width", p.width)) {
        p.shortest = 0;
    } else {
        bad(where, "size");
    }
}

void readThree(const json& j, const std::string& where, const char* key, double (&out)[3]) {
    if (!j.contains(key) || j[key].is_null()) return;
    if (!j[key].is_array() || j[key].size() != 3) bad(where, key);
    for (std::size_t i = 0; i < 3; ++i) {
        if (!j[key][i].is_number()) bad(where, key);
        out[i] = j[key][i].get<double>();
    }
}

Preprocess readPreprocess(const std::filesystem::path& directory, const ModelConfig& config) {
    const ImageEmbedding& image = config.encoder->image;
    Preprocess p;
    if (config.arch.starts_with("clip")) {
        p.shortest = std::min(image.height, image.width);
        p.crop = true;
        p.cropHeight = image.height;
        p.cropWidth = image.width;
        p.filter = Resample::Bicubic;
        const double mean[] = {0.48145466, 0.4578275, 0.40821073};
        const double deviation[] = {0.26862954, 0.26130258, 0.27577711};
        std::copy_n(mean, 3, p.mean);
        std::copy_n(deviation, 3, p.deviation);
    } else {
        p.height = image.height;
        p.width = image.width;
    }
    const auto file = directory / "preprocessor_config.json";
    std::error_code ec;
    if (!std::filesystem::exists(file, ec)) return p;
    const std::string where = file.string();
    const json j = parseJson(readTextFile(file, std::size_t(1) << 20), where, true);
    if (!j.is_object()) bad(where, "its content");
    const auto flag = [&](const char* key, bool& out) {
        if (!j.contains(key) || j[key].is_null()) return;
        if (!j[key].is_boolean()) bad(where, key);
        out = j[key].get<bool>();
    };
    flag("do_resize", p.resize);
    flag("do_center_crop", p.crop);
    flag("do_rescale", p.rescale);
    flag("do_normalize", p.normalise);
    if (j.contains("size") && !j["size"].is_null()) readSize(j["size"], where, p);
    if (j.contains("crop_size") && !j["crop_size"].is_null()) {
        const json& c = j["crop_size"];
        if (c.is_number_integer())
            p.cropHeight = p.cropWidth = c.get<Index>();
        else if (!c.is_object() || !number(c, "height", p.cropHeight) ||
                 !number(c, "width", p.cropWidth))
            bad(where, "crop_size");
    }
    if (j.contains("resample") && !j["resample"].is_null()) {
        const Index r = j["resample"].is_number_integer() ? j["resample"].get<Index>() : -1;
        if (r < 1 || r > 3)
            throw Error(Errc::Unsupported, where + ": resample " + j["resample"].dump() +
                                               " is not supported (1 lanczos, 2 bilinear and 3 "
                                               "bicubic are)");
        p.filter = Resample(r);
    }
    if (j.contains("rescale_factor") && j["rescale_factor"].is_number())
        p.factor = j["rescale_factor"].get<double>();
    readThree(j, where, "image_mean", p.mean);
    readThree(j, where, "image_std", p.deviation);
    for (const double d : p.deviation)
        if (!(d > 0)) bad(where, "image_std");
    return p;
}

Image cropped(const Image& image, Index height, Index width) {
    if (height > image.height || width > image.width)
        throw Error(Errc::Unsupported, "an image of " + std::to_string(image.width) + " x " +
                                           std::to_string(image.height) +
                                           " pixels is smaller than the model's crop of " +
                                           std::to_string(width) + " x " + std::to_string(height));
    const Index top = (image.height - height) / 2, left = (image.width - width) / 2;
    Image out{height, width, std::vector<std::uint8_t>(std::size_t(3 * height * width))};
    for (Index y = 0; y < height; ++y)
        std::memcpy(out.rgb.data() + 3 * y * width,
                    image.rgb.data() + 3 * ((top + y) * image.width + left),
                    std::size_t(3 * width));
    return out;
}

Pixels normalised(const Image& image, const Preprocess& p) {
    Pixels out{image.height, image.width,
               std::vector<float>(std::size_t(3 * image.height * image.width))};
    const Index plane = image.height * image.width;
    for (Index c = 0; c < 3; ++c)
        for (Index i = 0; i < plane; ++i) {
            float x = float(image.rgb[std::size_t(3 * i + c)]);
            if (p.rescale) x = float(double(x) * p.factor);
            if (p.normalise) x = (x - float(p.mean[c])) / float(p.deviation[c]);
            out.values[std::size_t(c * plane + i)] = x;
        }
    return out;
}

Pixels readNpy(const std::filesystem::path& path) {
    const auto file = openNpyFile(path);
    const ForeignTensor& t = file->tensors().front();
    std::vector<Index> shape = t.shape;
    if (shape.size() == 4 && shape.front() == 1) shape.erase(shape.begin());
    const std::string where = "'" + path.string() + "'";
    if (shape.size() != 3 || shape[0] != 3 || shape[1] < 1 || shape[2] < 1 || t.fortran)
        throw Error(Errc::Shape, where + " has shape " + t.shapeText() +
                                     "; pixel values are [3, height, width] in C order");
    Pixels out{shape[1], shape[2], std::vector<float>(std::size_t(t.elements()))};
    if (t.element == Element::F32) {
        file->read(0, 0, t.elements(), reinterpret_cast<std::byte*>(out.values.data()));
    } else if (t.element == Element::F64) {
        std::vector<double> wide(out.values.size());
        file->read(0, 0, t.elements(), reinterpret_cast<std::byte*>(wide.data()));
        std::transform(wide.begin(), wide.end(), out.values.begin(),
                       [](double x) { return float(x); });
    } else {
        throw Error(Errc::Unsupported,
                    where + " holds " + t.dtype + "; pixel values are float32 or float64");
    }
    return out;
}

}  // namespace

Pixels readPixels(const std::filesystem::path& file, const std::filesystem::path& modelDirectory,
                  const ModelConfig& config, std::optional<ImageSize> size) {
    if (!config.encoder || config.encoder->vision.layers == 0)
        throw Error(Errc::Unsupported,
                    "model '" + config.name + "' (" + config.arch + ") does not read images");
    if (file.extension() == ".npy") {
        if (size)
            throw Error(Errc::Usage, "an image size cannot be given for finished pixel values (" +
                                         file.string() + ")");
        return readNpy(file);
    }
    const Preprocess p = readPreprocess(modelDirectory, config);
    Image image = readImage(file);
    if (size) {
        image = resize(image, size->first, size->second, p.filter);
    } else {
        if (p.resize && p.shortest > 0) {
            const Index shorter = std::min(image.height, image.width);
            const Index longer = std::max(image.height, image.width);
            const Index other = Index(double(p.shortest) * double(longer) / double(shorter));
            image = image.height <= image.width ? resize(image, p.shortest, other, p.filter)
                                                : resize(image, other, p.shortest, p.filter);
        } else if (p.resize) {
            image = resize(image, p.height, p.width, p.filter);
        }
        if (p.crop) image = cropped(image, p.cropHeight, p.cropWidth);
    }
    return normalised(image, p);
}

ImageSize parseImageSize(std::string_view text) {
    const auto cross = text.find('x');
    const auto read = [&](std::string_view part) {
        Index n = 0;
        const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), n);
        if (error != std::errc() || end != part.data() + part.size() || n < 1 || n > 16384)
            throw Error(Errc::Usage, "image size '" + std::string(text) +
                                         "' is not of the form 448 or HEIGHTxWIDTH");
        return n;
    };
    if (cross == text.npos) {
        const Index n = read(text);
        return {n, n};
    }
    return {read(text.substr(0, cross)), read(text.substr(cross + 1))};
}

}  // namespace sparsight
