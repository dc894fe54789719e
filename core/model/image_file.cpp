#include "core/model/image_file.h"

#include <cairo.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

// jpeglib.h needs FILE and size_t from the headers above.
#include <jpeglib.h>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

constexpr Index kMostPixels = Index(1) << 26;
constexpr Index kMostBytes = Index(1) << 28;

void checkSize(const std::string& where, Index height, Index width) {
    if (height < 1 || width < 1) throw Error(Errc::Format, where + ": the image has no pixels");
    if (width > kMostPixels / height)
        throw Error(Errc::Resources, where + ": the image has " + std::to_string(width) + " x " +
                                         std::to_string(height) +
                                         " pixels; at most 64 million are read");
}

std::vector<unsigned char> readBytes(const std::filesystem::path& file) {
    std::error_code ec;
    if (!std::filesystem::exists(file, ec))
        throw Error(Errc::NotFound, "there is no file '" + file.string() + "'");
    const auto size = std::filesystem::is_regular_file(file, ec)
                          ? std::filesystem::file_size(file, ec)
                          : std::uintmax_t(0);
    if (ec || size > std::uintmax_t(kMostBytes))
        throw Error(Errc::Io, "'" + file.string() + "' is not an image file of a readable size");
    std::vector<unsigned char> bytes(size);
    std::ifstream in(file, std::ios::binary);
    in.read(reinterpret_cast<char*>(bytes.data()), std::streamsize(size));
    if (in.gcount() != std::streamsize(size))
        throw Error(Errc::Io, "cannot read '" + file.string() + "'");
    return bytes;
}

struct Stream {
    const std::vector<unsigned char>& bytes;
    std::size_t at = 0;
    static cairo_status_t read(void* self, unsigned char* out, unsigned int count) {
        auto& s = *static_cast<Stream*>(self);
        if (count > s.bytes.size() - s.at) return CAIRO_STATUS_READ_ERROR;
        std::memcpy(out, s.bytes.data() + s.at, count);
        s.at += count;
        return CAIRO_STATUS_SUCCESS;
    }
};

Image readPng(const std::vector<unsigned char>& bytes, const std::string& where) {
    // The size stands at a fixed place (IHDR comes first): looked at before anything is allocated.
    const auto number = [&](std::size_t at) {
        Index n = 0;
        for (std::size_t i = 0; i < 4; ++i) n = n << 8 | bytes[at + i];
        return n;
    };
    if (bytes.size() < 24) throw Error(Errc::Format, where + " is a damaged PNG file");
    checkSize(where, number(20), number(16));
    Stream stream{bytes};
    const std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface(
        cairo_image_surface_create_from_png_stream(&Stream::read, &stream), &cairo_surface_destroy);
    if (const auto status = cairo_surface_status(surface.get()); status != CAIRO_STATUS_SUCCESS)
        throw Error(Errc::Format,
                    where + " is a damaged PNG file: " + cairo_status_to_string(status));
    const auto format = cairo_image_surface_get_format(surface.get());
    if (format != CAIRO_FORMAT_ARGB32 && format != CAIRO_FORMAT_RGB24)
        throw Error(Errc::Unsupported, where +
                                           ": PNG with more than 8 bits is not read; save it "
                                           "with 8 bits per channel");
    Image image{cairo_image_surface_get_height(surface.get()),
                cairo_image_surface_get_width(surface.get()),
                {}};
    image.rgb.resize(std::size_t(3 * image.height * image.width));
    const unsigned char* data = cairo_image_surface_get_data(surface.get());
    const Index stride = cairo_image_surface_get_stride(surface.get());
    std::uint8_t* out = image.rgb.data();
    for (Index y = 0; y < image.height; ++y)
        for (Index x = 0; x < image.width; ++x) {
            std::uint32_t pixel;
            std::memcpy(&pixel, data + y * stride + 4 * x, 4);
            const std::uint32_t alpha = format == CAIRO_FORMAT_ARGB32 ? pixel >> 24 : 255;
            for (const int shift : {16, 8, 0}) {
                const std::uint32_t value = pixel >> shift & 255;
                // Cairo holds colours multiplied by alpha.
                *out++ = std::uint8_t(
                    alpha == 0 ? 0
                               : std::min<std::uint32_t>(255, (value * 255 + alpha / 2) / alpha));
            }
        }
    return image;
}

struct JpegError {
    jpeg_error_mgr base;  // first: libjpeg knows only this part
    std::jmp_buf jump;
    char text[JMSG_LENGTH_MAX] = {};
    static void fail(j_common_ptr info) {
        auto* self = reinterpret_cast<JpegError*>(info->err);
        info->err->format_message(info, self->text);
        std::longjmp(self->jump, 1);
    }
};

/// The C part: no C++ object with a destructor lives between setjmp and longjmp.
/// @return false when `error` says why
bool decodeJpeg(const unsigned char* data, unsigned long size, JpegError& error, Image& image,
                bool& tooLarge) {
    jpeg_decompress_struct info{};
    info.err = jpeg_std_error(&error.base);
    error.base.error_exit = &JpegError::fail;
    error.base.output_message = [](j_common_ptr) {};
    if (setjmp(error.jump)) {
        jpeg_destroy_decompress(&info);
        return false;
    }
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, data, size);
    jpeg_read_header(&info, TRUE);
    image.height = info.image_height;
    image.width = info.image_width;
    tooLarge = image.width > kMostPixels / std::max<Index>(1, image.height);
    if (!tooLarge) {
        info.out_color_space = JCS_RGB;
        jpeg_start_decompress(&info);
        image.rgb.resize(std::size_t(3 * image.height * image.width));
        while (info.output_scanline < info.output_height) {
            JSAMPROW row = image.rgb.data() + 3 * image.width * Index(info.output_scanline);
            jpeg_read_scanlines(&info, &row, 1);
        }
        jpeg_finish_decompress(&info);
    }
    jpeg_destroy_decompress(&info);
    return true;
}

Image readJpeg(const std::vector<unsigned char>& bytes, const std::string& where) {
    Image image;
    JpegError error;
    bool tooLarge = false;
    if (!decodeJpeg(bytes.data(), bytes.size(), error, image, tooLarge))
        throw Error(Errc::Format, where + " is a damaged JPEG file: " + error.text);
    if (tooLarge) checkSize(where, image.height, image.width);
    return image;
}

double sinc(double x) {
    if (x == 0) return 1;
    x *= 3.14159265358979323846;
    return std::sin(x) / x;
}

double weight(Resample filter, double x) {
    x = std::abs(x);
    switch (filter) {
        case Resample::Lanczos:
            return x < 3 ? sinc(x) * sinc(x / 3) : 0;
        case Resample::Bilinear:
            return x < 1 ? 1 - x : 0;
        default: {
            constexpr double a = -0.5;
            if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
            return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
        }
    }
}

/// One axis: `lines` lines of `in` samples become lines of `out` samples; `step` and `next` are the
/// distances of samples and of lines.
void resizeAxis(const std::uint8_t* from, std::uint8_t* to, Index in, Index out, Index lines,
                Index fromStep, Index fromNext, Index toStep, Index toNext, Resample filter) {
    constexpr int kBits = 22;  // fixed-point weights, as PIL rounds
    const double scale = double(in) / double(out), wide = std::max(scale, 1.0);
    const double support = (filter == Resample::Lanczos    ? 3.0
                            : filter == Resample::Bilinear ? 1.0
                                                           : 2.0) *
                           wide;
    std::vector<double> weights;
    std::vector<std::int64_t> fixed;
    for (Index o = 0; o < out; ++o) {
        const double centre = (double(o) + 0.5) * scale;
        const Index first = std::max<Index>(0, Index(centre - support + 0.5));
        const Index last = std::min(in, Index(centre + support + 0.5));
        weights.clear();
        double sum = 0;
        for (Index i = first; i < last; ++i) {
            weights.push_back(weight(filter, (double(i) - centre + 0.5) / wide));
            sum += weights.back();
        }
        fixed.clear();
        for (const double w : weights) {
            const double value = w / sum * double(1 << kBits);
            fixed.push_back(std::int64_t(value < 0 ? value - 0.5 : value + 0.5));
        }
        for (Index line = 0; line < lines; ++line)
            for (Index c = 0; c < 3; ++c) {
                std::int64_t total = 1 << (kBits - 1);
                for (std::size_t i = 0; i < fixed.size(); ++i)
                    total += fixed[i] * from[line * fromNext + (first + Index(i)) * fromStep + c];
                to[line * toNext + o * toStep + c] =
                    std::uint8_t(std::clamp<std::int64_t>(total >> kBits, 0, 255));
            }
    }
}

}  // namespace

Image readImage(const std::filesystem::path& file) {
    const std::vector<unsigned char> bytes = readBytes(file);
    const std::string where = "'" + file.string() + "'";
    constexpr std::array<unsigned char, 8> kPng{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    if (bytes.size() >= 8 && std::equal(kPng.begin(), kPng.end(), bytes.begin()))
        return readPng(bytes, where);
    if (bytes.size() >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff)
        return readJpeg(bytes, where);
    throw Error(Errc::Unsupported, where + " is neither a PNG nor a JPEG file; convert it to one");
}

Image resize(const Image& image, Index height, Index width, Resample filter) {
    checkSize("the resized image", height, width);
    Image wide = image;
    if (width != image.width) {
        wide = {image.height, width,
                std::vector<std::uint8_t>(std::size_t(3 * image.height * width))};
        resizeAxis(image.rgb.data(), wide.rgb.data(), image.width, width, image.height, 3,
                   3 * image.width, 3, 3 * width, filter);
    }
    if (height == wide.height) return wide;
    Image out{height, width, std::vector<std::uint8_t>(std::size_t(3 * height * width))};
    resizeAxis(wide.rgb.data(), out.rgb.data(), wide.height, height, width, 3 * width, 3, 3 * width,
               3, filter);
    return out;
}

}  // namespace sparsight
