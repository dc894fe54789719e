#include "core/export/canvas.h"

#include <cairo-pdf.h>
#include <cairo.h>
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstring>
#include <memory>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

struct CairoFree {
    void operator()(cairo_t* c) const { cairo_destroy(c); }
    void operator()(cairo_surface_t* s) const { cairo_surface_destroy(s); }
    void operator()(cairo_font_options_t* o) const { cairo_font_options_destroy(o); }
};
using Surface = std::unique_ptr<cairo_surface_t, CairoFree>;
using Context = std::unique_ptr<cairo_t, CairoFree>;

constexpr const char* kFont = "DejaVu Sans";
constexpr const char* kSvgFonts = "DejaVu Sans, Bitstream Vera Sans, Verdana, sans-serif";

void check(cairo_status_t status) {
    if (status != CAIRO_STATUS_SUCCESS)
        throw Error(Errc::Resources, fmt::format("the figure could not be drawn: {}",
                                                 cairo_status_to_string(status)));
}

Context contextOn(cairo_surface_t* surface) {
    Context context(cairo_create(surface));
    check(cairo_status(context.get()));
    const std::unique_ptr<cairo_font_options_t, CairoFree> options(cairo_font_options_create());
    cairo_font_options_set_antialias(options.get(), CAIRO_ANTIALIAS_GRAY);
    cairo_font_options_set_hint_style(options.get(), CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(options.get(), CAIRO_HINT_METRICS_OFF);
    cairo_set_font_options(context.get(), options.get());
    return context;
}

Surface imageSurface(Index width, Index height) {
    if (width < 1 || height < 1 || width > 32767 || height > 32767)
        throw Error(Errc::Usage,
                    fmt::format("a figure of {} x {} pixels is out of range; width and height must "
                                "be 1 to 32767",
                                width, height));
    Surface surface(cairo_image_surface_create(CAIRO_FORMAT_ARGB32, int(width), int(height)));
    check(cairo_surface_status(surface.get()));
    return surface;
}

Surface toSurface(const Raster& raster) {
    Surface surface = imageSurface(raster.width, raster.height);
    cairo_surface_flush(surface.get());
    unsigned char* data = cairo_image_surface_get_data(surface.get());
    const auto stride = std::size_t(cairo_image_surface_get_stride(surface.get()));
    for (std::size_t y = 0; y < std::size_t(raster.height); ++y)
        std::memcpy(data + y * stride, raster.pixels.data() + y * std::size_t(raster.width),
                    std::size_t(raster.width) * 4);
    cairo_surface_mark_dirty(surface.get());
    return surface;
}

cairo_status_t append(void* bytes, const unsigned char* data, unsigned int length) {
    static_cast<std::string*>(bytes)->append(reinterpret_cast<const char*>(data), length);
    return CAIRO_STATUS_SUCCESS;
}

std::string encodePng(cairo_surface_t* surface) {
    std::string bytes;
    check(cairo_surface_write_to_png_stream(surface, append, &bytes));
    return bytes;
}

class CairoCanvas final : public Canvas {
public:
    /// @param snap  edges of images fall on whole device pixels (not on paper)
    CairoCanvas(cairo_surface_t* surface, double scaleX, double scaleY, bool snap)
        : m_context(contextOn(surface)), m_scaleX(scaleX), m_scaleY(scaleY), m_snap(snap) {
        cairo_scale(m_context.get(), scaleX, scaleY);
        cairo_set_line_join(m_context.get(), CAIRO_LINE_JOIN_ROUND);
    }

    void fill(double x, double y, double w, double h, Rgb colour) override {
        paintWith(colour);
        cairo_rectangle(m_context.get(), x, y, w, h);
        cairo_fill(m_context.get());
    }
    void line(const std::vector<Point>& points, double width, Rgb colour) override {
        if (points.size() < 2) return;
        paintWith(colour);
        cairo_set_line_width(m_context.get(), width);
        cairo_move_to(m_context.get(), points[0].x, points[0].y);
        for (std::size_t i = 1; i < points.size(); ++i)
            cairo_line_to(m_context.get(), points[i].x, points[i].y);
        cairo_stroke(m_context.get());
    }
    void dot(double x, double y, double radius, Rgb colour) override {
        paintWith(colour);
        cairo_arc(m_context.get(), x, y, radius, 0, 2 * M_PI);
        cairo_fill(m_context.get());
    }
    void text(double x, double y, std::string_view text, const TextStyle& style) override {
        cairo_t* c = m_context.get();
        paintWith(style.colour);
        cairo_select_font_face(c, kFont, CAIRO_FONT_SLANT_NORMAL,
                               style.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
        cairo_set_font_size(c, style.size);
        const double back = style.anchor * textWidth(text, style.size, style.bold);
        cairo_save(c);
        cairo_translate(c, x, y);
        if (style.up) cairo_rotate(c, -M_PI / 2);
        cairo_move_to(c, -back, 0);
        cairo_show_text(c, std::string(text).c_str());
        cairo_restore(c);
    }
    void image(double x, double y, double w, double h, const Raster& raster) override {
        cairo_t* c = m_context.get();
        if (m_snap) {
            const auto snapped = [](double v, double scale) {
                return std::round(v * scale) / scale;
            };
            const double right = snapped(x + w, m_scaleX), bottom = snapped(y + h, m_scaleY);
            x = snapped(x, m_scaleX);
            y = snapped(y, m_scaleY);
            w = right - x;
            h = bottom - y;
        }
        const Surface source = toSurface(raster);
        cairo_save(c);
        cairo_rectangle(c, x, y, w, h);
        cairo_clip(c);
        cairo_translate(c, x, y);
        cairo_scale(c, w / double(raster.width), h / double(raster.height));
        cairo_set_source_surface(c, source.get(), 0, 0);
        // More cells than device pixels: nearest would drop whole columns, so average instead.
        const bool dense =
            m_snap && (w * m_scaleX < double(raster.width) || h * m_scaleY < double(raster.height));
        cairo_pattern_set_filter(cairo_get_source(c),
                                 dense ? CAIRO_FILTER_BEST : CAIRO_FILTER_NEAREST);
        cairo_pattern_set_extend(cairo_get_source(c), CAIRO_EXTEND_PAD);
        cairo_paint(c);
        cairo_restore(c);
    }
    void finish() { check(cairo_status(m_context.get())); }

private:
    void paintWith(Rgb c) {
        cairo_set_source_rgb(m_context.get(), c.r / 255.0, c.g / 255.0, c.b / 255.0);
    }
    Context m_context;
    double m_scaleX, m_scaleY;
    bool m_snap;
};

std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '<')
            out += "&lt;";
        else if (c == '>')
            out += "&gt;";
        else if (c == '&')
            out += "&amp;";
        else if (c == '"')
            out += "&quot;";
        else if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t')
            out += ' ';
        else
            out += c;
    }
    return out;
}

std::string base64(std::string_view bytes) {
    constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const auto byte = [&](std::size_t j) {
            return j < bytes.size() ? std::uint32_t(static_cast<unsigned char>(bytes[j])) : 0u;
        };
        const std::uint32_t v = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
        out += kDigits[v >> 18];
        out += kDigits[(v >> 12) & 63];
        out += i + 1 < bytes.size() ? kDigits[(v >> 6) & 63] : '=';
        out += i + 2 < bytes.size() ? kDigits[v & 63] : '=';
    }
    return out;
}

/// Written by hand: cairo's own SVG numbers its images through the whole process, so two files of
/// one figure would differ, and its text is outlines that nobody can search or edit.
class SvgCanvas final : public Canvas {
public:
    SvgCanvas(double width, double height, const FileInfo& info) {
        m_out = fmt::format(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" "
            "xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"{0:.2f}pt\" height=\"{1:.2f}pt\" "
            "viewBox=\"0 0 {0:.2f} {1:.2f}\" font-family=\"{2}\">\n"
            "<title>{3}</title>\n<desc>{4}</desc>\n<metadata>{5}</metadata>\n",
            width, height, kSvgFonts, escaped(info.title), escaped(info.caption),
            escaped(info.metadata));
    }
    void fill(double x, double y, double w, double h, Rgb colour) override {
        m_out += fmt::format(
            "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"/>\n", x,
            y, w, h, hex(colour));
    }
    void line(const std::vector<Point>& points, double width, Rgb colour) override {
        if (points.size() < 2) return;
        m_out += fmt::format(
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{:.2f}\" "
            "stroke-linejoin=\"round\" points=\"",
            hex(colour), width);
        for (const Point& p : points) m_out += fmt::format("{:.2f},{:.2f} ", p.x, p.y);
        m_out.back() = '"';
        m_out += "/>\n";
    }
    void dot(double x, double y, double radius, Rgb colour) override {
        m_out += fmt::format("<circle cx=\"{:.2f}\" cy=\"{:.2f}\" r=\"{:.2f}\" fill=\"{}\"/>\n", x,
                             y, radius, hex(colour));
    }
    void text(double x, double y, std::string_view text, const TextStyle& style) override {
        m_out += fmt::format("<text x=\"{:.2f}\" y=\"{:.2f}\" font-size=\"{:.2f}\" fill=\"{}\"", x,
                             y, style.size, hex(style.colour));
        if (style.bold) m_out += " font-weight=\"bold\"";
        if (style.anchor > 0)
            m_out += style.anchor < 1 ? " text-anchor=\"middle\"" : " text-anchor=\"end\"";
        if (style.up) m_out += fmt::format(" transform=\"rotate(-90 {:.2f} {:.2f})\"", x, y);
        m_out += fmt::format(">{}</text>\n", escaped(text));
    }
    void image(double x, double y, double w, double h, const Raster& raster) override {
        const Surface source = toSurface(raster);
        m_out += fmt::format(
            "<image x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
            "preserveAspectRatio=\"none\" image-rendering=\"optimizeSpeed\" "
            "style=\"image-rendering:pixelated\" xlink:href=\"data:image/png;base64,{}\"/>\n",
            x, y, w, h, base64(encodePng(source.get())));
    }
    std::string finish() { return m_out + "</svg>\n"; }

private:
    static std::string hex(Rgb c) { return fmt::format("#{:02x}{:02x}{:02x}", c.r, c.g, c.b); }
    std::string m_out;
};

std::uint32_t crc32(std::string_view bytes) {
    static const std::array<std::uint32_t, 256> table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t c = i;
            for (int k = 0; k < 8; ++k) c = (c & 1u) ? 0xedb88320u ^ (c >> 1) : c >> 1;
            t[i] = c;
        }
        return t;
    }();
    std::uint32_t c = 0xffffffffu;
    for (const char b : bytes) c = table[(c ^ static_cast<unsigned char>(b)) & 0xffu] ^ (c >> 8);
    return ~c;
}

std::string bigEndian(std::uint32_t v) {
    return {char(v >> 24), char((v >> 16) & 0xff), char((v >> 8) & 0xff), char(v & 0xff)};
}

std::string pngChunk(std::string_view type, std::string_view data) {
    const std::string body = std::string(type) + std::string(data);
    return bigEndian(std::uint32_t(data.size())) + body + bigEndian(crc32(body));
}

/// tEXt holds Latin-1 only: text beyond ASCII goes into an iTXt chunk, which is UTF-8.
std::string pngText(std::string_view keyword, const std::string& text) {
    if (text.empty()) return {};
    bool ascii = true;
    for (const char c : text) ascii = ascii && static_cast<unsigned char>(c) < 0x80;
    std::string data(keyword);
    data += '\0';
    if (!ascii) data.append("\0\0\0\0", 4);  // not compressed, no language, no translated keyword
    return pngChunk(ascii ? "tEXt" : "iTXt", data + text);
}

}  // namespace

double textWidth(std::string_view text, double size, bool bold) {
    thread_local const Surface surface = imageSurface(1, 1);
    thread_local const Context context = contextOn(surface.get());
    cairo_select_font_face(context.get(), kFont, CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(context.get(), size);
    cairo_text_extents_t extents;
    cairo_text_extents(context.get(), std::string(text).c_str(), &extents);
    return extents.x_advance;
}

std::string renderPng(double width, double height, double dpi, const FileInfo& info,
                      const Drawing& draw) {
    const double scale = dpi / 72;
    const Surface surface =
        imageSurface(Index(std::lround(width * scale)), Index(std::lround(height * scale)));
    {
        CairoCanvas canvas(surface.get(), scale, scale, true);
        draw(canvas);
        canvas.finish();
    }
    const std::string png = encodePng(surface.get());
    constexpr std::size_t kAfterHeader = 8 + 25;  // signature and IHDR
    const std::string perMetre = bigEndian(std::uint32_t(std::lround(dpi / 0.0254)));
    std::string out = png.substr(0, kAfterHeader);
    out += pngChunk("pHYs", perMetre + perMetre + '\x01');
    out += pngText("Software", "Sparsight");
    out += pngText("Title", info.title);
    out += pngText("Description", info.caption);
    out += pngText("sparsight", info.metadata);
    return out + png.substr(kAfterHeader);
}

std::string renderSvg(double width, double height, const FileInfo& info, const Drawing& draw) {
    SvgCanvas canvas(width, height, info);
    draw(canvas);
    return canvas.finish();
}

std::string renderPdf(double width, double height, const FileInfo& info, const Drawing& draw) {
    std::string bytes;
    const Surface surface(cairo_pdf_surface_create_for_stream(append, &bytes, width, height));
    check(cairo_surface_status(surface.get()));
    cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_TITLE, info.title.c_str());
    cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_SUBJECT, info.caption.c_str());
    cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_KEYWORDS,
                                   info.metadata.c_str());
    cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_CREATOR, "Sparsight");
    // Cairo would write the time of day, and the same figure would give other bytes.
    cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_CREATE_DATE, nullptr);
    {
        CairoCanvas canvas(surface.get(), 1, 1, false);
        draw(canvas);
        canvas.finish();
    }
    cairo_surface_finish(surface.get());
    check(cairo_surface_status(surface.get()));
    return bytes;
}

std::vector<std::uint32_t> renderPixels(double width, double height, Index widthPx, Index heightPx,
                                        const Drawing& draw) {
    const Surface surface = imageSurface(widthPx, heightPx);
    {
        CairoCanvas canvas(surface.get(), double(widthPx) / width, double(heightPx) / height, true);
        draw(canvas);
        canvas.finish();
    }
    cairo_surface_flush(surface.get());
    const unsigned char* data = cairo_image_surface_get_data(surface.get());
    const auto stride = std::size_t(cairo_image_surface_get_stride(surface.get()));
    std::vector<std::uint32_t> pixels(std::size_t(widthPx * heightPx));
    for (std::size_t y = 0; y < std::size_t(heightPx); ++y)
        std::memcpy(pixels.data() + y * std::size_t(widthPx), data + y * stride,
                    std::size_t(widthPx) * 4);
    return pixels;
}

}  // namespace sparsight
