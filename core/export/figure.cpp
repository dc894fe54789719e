#include "core/export/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/export/canvas.h"
#include "core/export/write_file.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

constexpr double kMargin = 8, kSmall = 7, kTitle = 9;  // points; type is never below 7
constexpr double kSmallLine = 9.4, kTitleLine = 12;
constexpr double kTick = 3, kSwatch = 7;

struct Theme {
    Rgb paper, ink, muted, grid, noData;
};
Theme theme(bool dark) {
    if (dark) return {{22, 24, 29}, {240, 241, 243}, {178, 183, 191}, {52, 56, 64}, {44, 48, 56}};
    return {{255, 255, 255}, {24, 26, 30}, {74, 78, 86}, {222, 224, 228}, {232, 233, 236}};
}

struct Box {
    double x = 0, y = 0, w = 0, h = 0;
};

/// Next character boundary of UTF-8 after `at`.
std::size_t nextCharacter(std::string_view text, std::size_t at) {
    do ++at;
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
    return at;
}

/// Lines no wider than `width`: broken at spaces; a word that is too wide alone is broken after a
/// comma or colon when it has one, else anywhere.
std::vector<std::string> wrap(std::string_view text, double width, double size, bool bold = false) {
    std::vector<std::string> lines;
    std::string line;
    const auto fits = [&](const std::string& s) { return textWidth(s, size, bold) <= width; };
    while (!text.empty()) {
        const std::size_t space = text.find_first_of(" \n");
        std::string_view word = text.substr(0, space);
        text = space == text.npos ? std::string_view{} : text.substr(space + 1);
        if (word.empty()) continue;
        std::string joined = line + (line.empty() ? "" : " ") + std::string(word);
        if (fits(joined)) {
            line = std::move(joined);
            continue;
        }
        if (!line.empty()) lines.push_back(std::move(line));
        line.clear();
        while (!fits(std::string(word))) {
            std::size_t cut = nextCharacter(word, 0), soft = 0;
            while (cut < word.size()) {
                const std::size_t next = nextCharacter(word, cut);
                if (!fits(std::string(word.substr(0, next)))) break;
                if (word[cut] == ',' || word[cut] == ':') soft = next;
                cut = next;
            }
            if (cut >= word.size()) break;
            if (soft > 0) cut = soft;
            lines.emplace_back(word.substr(0, cut));
            word.remove_prefix(cut);
        }
        line = std::string(word);
    }
    if (!line.empty()) lines.push_back(std::move(line));
    return lines;
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `least`.
double niceStep(double least) {
    const double power = std::pow(10.0, std::floor(std::log10(least)));
    for (const double m : {1.0, 2.0, 5.0})
        if (m * power >= least * (1 - 1e-9)) return m * power;
    return 10 * power;
}

struct Tick {
    double value = 0;  ///< in the axis' own unit
    std::string label;
};

std::string plain(double value, double step) {
    const int decimals = std::clamp(int(std::ceil(-std::log10(step) - 1e-9)), 0, 12);
    if (std::abs(value) < step * 1e-6) value = 0;  // no "-0.0"
    return fmt::format("{:.{}f}", value, decimals);
}

/// Multiples of a nice step within [lo, hi], no closer than `pitch` points on an axis of `length`.
std::vector<Tick> linearTicks(double lo, double hi, double length, double pitch, bool percent) {
    const double step = niceStep((hi - lo) * pitch / std::max(length, pitch));
    std::vector<Tick> ticks;
    for (double i = std::ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; ++i)
        ticks.push_back(
            {i * step, percent ? plain(i * step * 100, step * 100) + "%" : plain(i * step, step)});
    return ticks;
}

/// Whole tokens of [begin, end).
std::vector<Tick> tokenTicks(Index begin, Index end, double length, double pitch) {
    const Index step = std::max<Index>(
        1, Index(std::llround(niceStep(double(end - begin) * pitch / std::max(length, pitch)))));
    std::vector<Tick> ticks;
    for (Index t = (begin + step - 1) / step * step; t < end; t += step)
        ticks.push_back({double(t), fmt::format("{}", t)});
    return ticks;
}

std::string powerOfTen(int exponent) {
    static constexpr const char* kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    if (exponent == 0) return "1";
    std::string out = "10";
    if (exponent < 0) out += "⁻";
    for (const char c : fmt::format("{}", std::abs(exponent))) out += kDigits[c - '0'];
    return out;
}

/// Ticks of a colour bar. `below` marks a logarithmic bar whose lowest colour also stands for
/// everything smaller.
std::vector<Tick> barTicks(const ColourScale& scale, double length, bool below) {
    if (!scale.log) return linearTicks(scale.lo, scale.hi, length, 18, false);
    const double lo = std::log10(scale.lo), hi = std::log10(scale.hi);
    const int first = int(std::ceil(lo - 1e-9)), last = int(std::floor(hi + 1e-9));
    std::vector<Tick> ticks;
    if (last - first >= 1) {
        const int step = std::max(1, int(std::ceil(12 * (hi - lo) / length)));
        for (int e = last; e >= first; e -= step)
            ticks.push_back({std::pow(10.0, e), powerOfTen(e)});
        std::reverse(ticks.begin(), ticks.end());
    } else {
        for (int e = first - 1; e <= last + 1; ++e)
            for (const double m : {1.0, 2.0, 5.0}) {
                const double v = m * std::pow(10.0, e);
                if (v >= scale.lo * (1 - 1e-9) && v <= scale.hi * (1 + 1e-9))
                    ticks.push_back({v, fmt::format("{:g}", v)});
            }
    }
    if (below && !ticks.empty() && std::abs(std::log10(ticks[0].value) - lo) < 1e-6)
        ticks[0].label = "≤ " + ticks[0].label;
    return ticks;
}

double widest(const std::vector<Tick>& ticks) {
    double w = 0;
    for (const Tick& t : ticks) w = std::max(w, textWidth(t.label, kSmall));
    return w;
}

struct LegendItem {
    std::string label;
    Rgb colour;
};

/// What surrounds every figure: title and legend above, caption below. Both charts and maps use it.
struct Surround {
    std::vector<std::string> title, caption;
    struct Entry {
        double x, y;  ///< of the text's baseline, relative to the legend's top left corner
        std::string line;
        bool first;  ///< has the swatch
        Rgb colour;
    };
    std::vector<Entry> legend;
    double legendHeight = 0;
    Box inner;  ///< what is left for axes

    Surround(const FileInfo& info, const std::vector<LegendItem>& items, double width,
             double height) {
        const double room = width - 2 * kMargin;
        title = wrap(info.title, room, kTitle, true);
        caption = wrap(info.caption, room, kSmall);
        double x = 0, y = 0;
        for (const LegendItem& item : items) {
            const auto lines = wrap(item.label, room - kSwatch - 4, kSmall);
            double w = 0;
            for (const std::string& l : lines) w = std::max(w, textWidth(l, kSmall));
            if (x > 0 && (lines.size() > 1 || x + kSwatch + 4 + w > room)) {
                x = 0;
                y += kSmallLine + 1;
            }
            for (std::size_t i = 0; i < lines.size(); ++i)
                legend.push_back({x + kSwatch + 4, y + double(i) * kSmallLine + kSmall, lines[i],
                                  i == 0, item.colour});
            if (lines.size() > 1) {
                y += double(lines.size()) * kSmallLine + 1;
                x = 0;
            } else {
                x += kSwatch + 4 + w + 12;
            }
        }
        legendHeight = items.empty() ? 0 : x > 0 ? y + kSmallLine : y;
        const double top =
            kMargin + double(title.size()) * kTitleLine + legendHeight + (items.empty() ? 2 : 6);
        const double foot =
            kMargin + (caption.empty() ? 0 : 6 + double(caption.size()) * kSmallLine);
        inner = {kMargin, top, room, height - top - foot};
    }

    void draw(Canvas& canvas, const Theme& t, double width, double height) const {
        canvas.fill(0, 0, width, height, t.paper);
        double y = kMargin;
        for (const std::string& l : title) {
            canvas.text(kMargin, y + kTitle, l, {t.ink, kTitle, true});
            y += kTitleLine;
        }
        for (const Entry& e : legend) {
            if (e.first)
                canvas.fill(kMargin + e.x - kSwatch - 4, y + e.y - kSwatch + 0.8, kSwatch, kSwatch,
                            e.colour);
            canvas.text(kMargin + e.x, y + e.y, e.line, {t.ink, kSmall});
        }
        double base = height - kMargin - double(caption.size()) * kSmallLine + kSmall;
        for (const std::string& l : caption) {
            canvas.text(kMargin, base, l, {t.muted, kSmall});
            base += kSmallLine;
        }
    }
};

void requireRoom(const Box& plot) {
    if (plot.w < 30 || plot.h < 30)
        throw Error(Errc::Usage,
                    "the figure is too small for its title, legend and caption; make it wider or "
                    "higher, or draw fewer masks");
}

Rgb blend(Rgb a, Rgb b, double share) {
    const auto mix = [share](std::uint8_t from, std::uint8_t to) {
        return std::uint8_t(std::lround(double(from) + (double(to) - double(from)) * share));
    };
    return {mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b)};
}

std::uint32_t argb(Rgb c) {
    return 0xff000000u | std::uint32_t(c.r) << 16 | std::uint32_t(c.g) << 8 | c.b;
}

/// The map's pixels with its overlays, each enlarged by whole factors when there are few of them:
/// viewers that smooth images then leave them sharp.
Raster mapRaster(const MapFigure& f, const Theme& t) {
    const Index sx = std::max<Index>(1, 512 / f.width), sy = std::max<Index>(1, 512 / f.height);
    Raster raster{f.width * sx, f.height * sy, {}};
    raster.pixels.resize(std::size_t(raster.width * raster.height));
    for (Index y = 0; y < f.height; ++y)
        for (Index x = 0; x < f.width; ++x) {
            const auto at = std::size_t(y * f.width + x);
            const double position = f.scale.position(double(f.values[at]));
            Rgb c = std::isnan(position) ? t.noData : colour(f.scale.map, position);
            for (const MapFigure::Overlay& o : f.overlays)
                if (o.kept[at] > 0)
                    c = blend(c, o.colour, std::clamp(o.opacity * double(o.kept[at]), 0.0, 1.0));
            for (Index v = 0; v < sy; ++v) {
                const auto row = raster.pixels.begin() + (y * sy + v) * raster.width + x * sx;
                std::fill(row, row + sx, argb(c));
            }
        }
    return raster;
}

void checkFigure(const MapFigure& f) {
    const auto cells = std::size_t(std::max<Index>(f.width, 0) * std::max<Index>(f.height, 0));
    if (cells == 0 || f.values.size() != cells)
        throw Error(Errc::Shape, fmt::format("a map figure of {} x {} pixels has {} values",
                                             f.width, f.height, f.values.size()));
    for (const MapFigure::Overlay& o : f.overlays)
        if (o.kept.size() != cells)
            throw Error(Errc::Shape, fmt::format("overlay {} has {} values, the map {}", o.label,
                                                 o.kept.size(), cells));
    if (f.q0 >= f.q1 || f.k0 >= f.k1)
        throw Error(Errc::Shape,
                    fmt::format("a map figure of queries {}:{} and keys {}:{} is empty", f.q0, f.q1,
                                f.k0, f.k1));
}

void drawTickX(Canvas& canvas, const Theme& t, const Box& plot, double x,
               const std::string& label) {
    canvas.line({{x, plot.y + plot.h}, {x, plot.y + plot.h + kTick}}, 0.6, t.ink);
    canvas.text(x, plot.y + plot.h + kTick + 2 + kSmall, label, {t.ink, kSmall, false, 0.5});
}

void drawTickY(Canvas& canvas, const Theme& t, const Box& plot, double y,
               const std::string& label) {
    canvas.line({{plot.x - kTick, y}, {plot.x, y}}, 0.6, t.ink);
    canvas.text(plot.x - kTick - 2, y + kSmall * 0.36, label, {t.ink, kSmall, false, 1});
}

constexpr double kBelow = kTick + 2 + kSmall + 4 + kSmall + 3;  ///< x ticks, labels and title
constexpr double kBarGap = 10, kBarWidth = 9;

/// Where the parts of a map figure stand; they depend on each other, so a few rounds settle them.
struct MapLayout {
    Box plot;
    std::vector<Tick> x, y, bar;
    std::vector<std::string> barLabel;
    double yWidth = 0;

    MapLayout(const MapFigure& f, const Box& inner) {
        bool below = false;
        for (const float v : f.values) below = below || (v >= 0 && double(v) < f.scale.lo);
        plot = inner;
        const double tokensX = double(f.k1 - f.k0), tokensY = double(f.q1 - f.q0);
        const bool square = tokensX / tokensY > 0.33 && tokensX / tokensY < 3;
        for (int round = 0; round < 4; ++round) {
            y = tokenTicks(f.q0, f.q1, plot.h, 20);
            bar = barTicks(f.scale, plot.h, below);
            barLabel = wrap(f.barLabel, plot.h, kSmall);
            yWidth = widest(y);
            const double left = kSmall + 5 + yWidth + 2 + kTick;
            const double right = kBarGap + kBarWidth + kTick + 2 + widest(bar) + 4 +
                                 double(barLabel.size()) * kSmallLine;
            const double w = inner.w - left - right, h = inner.h - 4 - kBelow;
            plot = {inner.x + left, inner.y + 4, w, h};
            requireRoom(plot);
            if (square) {
                plot.w = std::min(w, h * tokensX / tokensY);
                plot.h = std::min(h, w * tokensY / tokensX);
                plot.x += (w - plot.w) / 2;
                plot.y += (h - plot.h) / 2;
            }
            const double label =
                std::max(textWidth(fmt::format("{}", f.k1), kSmall), textWidth("00", kSmall));
            x = tokenTicks(f.k0, f.k1, plot.w, label + 12);
        }
    }
};

void draw(Canvas& canvas, const MapFigure& f, double width, double height, bool dark) {
    const Theme t = theme(dark);
    std::vector<LegendItem> items;
    for (const MapFigure::Overlay& o : f.overlays) items.push_back({o.label, o.colour});
    const Surround surround({f.title, f.caption, {}}, items, width, height);
    surround.draw(canvas, t, width, height);
    const MapLayout layout(f, surround.inner);
    const Box& plot = layout.plot;

    canvas.image(plot.x, plot.y, plot.w, plot.h, mapRaster(f, t));
    canvas.frame(plot.x, plot.y, plot.w, plot.h, 0.6, t.ink);
    for (const Tick& tick : layout.x)
        drawTickX(canvas, t, plot,
                  plot.x + plot.w * (tick.value - double(f.k0) + 0.5) / double(f.k1 - f.k0),
                  tick.label);
    for (const Tick& tick : layout.y)
        drawTickY(canvas, t, plot,
                  plot.y + plot.h * (tick.value - double(f.q0) + 0.5) / double(f.q1 - f.q0),
                  tick.label);
    canvas.text(plot.x + plot.w / 2, plot.y + plot.h + kBelow - 3, "key (token)",
                {t.ink, kSmall, false, 0.5});
    canvas.text(plot.x - kTick - 2 - layout.yWidth - 5, plot.y + plot.h / 2, "query (token)",
                {t.ink, kSmall, false, 0.5, true});

    const double barX = plot.x + plot.w + kBarGap;
    Raster ramp{1, 512, std::vector<std::uint32_t>(512)};
    for (std::size_t i = 0; i < 512; ++i)
        ramp.pixels[i] = argb(colour(f.scale.map, 1 - double(i) / 511));
    canvas.image(barX, plot.y, kBarWidth, plot.h, ramp);
    canvas.frame(barX, plot.y, kBarWidth, plot.h, 0.6, t.ink);
    for (const Tick& tick : layout.bar) {
        const double y = plot.y + plot.h * (1 - f.scale.position(tick.value));
        canvas.line({{barX + kBarWidth, y}, {barX + kBarWidth + kTick, y}}, 0.6, t.ink);
        canvas.text(barX + kBarWidth + kTick + 2, y + kSmall * 0.36, tick.label, {t.ink, kSmall});
    }
    double labelX = barX + kBarWidth + kTick + 2 + widest(layout.bar) + 4 + kSmall;
    for (const std::string& l : layout.barLabel) {
        canvas.text(labelX, plot.y + plot.h / 2, l, {t.ink, kSmall, false, 0.5, true});
        labelX += kSmallLine;
    }
}

/// Range of an axis: the data, out to whole nice steps; from zero when the data come near it.
struct AxisRange {
    double lo = std::numeric_limits<double>::infinity(), hi = -lo;
    void add(double v) {
        lo = std::min(lo, v);
        hi = std::max(hi, v);
    }
    void round() {
        if (!(lo <= hi)) lo = 0, hi = 1;
        if (lo > 0 && lo < 0.5 * hi) lo = 0;
        if (hi - lo < 1e-12 * std::max(1.0, std::abs(hi))) {
            const double by = hi != 0 ? std::abs(hi) * 0.1 : 0.5;
            lo -= by;
            hi += by;
        }
        const double step = niceStep((hi - lo) / 6);
        lo = std::floor(lo / step + 1e-9) * step;
        hi = std::ceil(hi / step - 1e-9) * step;
    }
};

void draw(Canvas& canvas, const ChartFigure& f, double width, double height, bool dark) {
    const Theme t = theme(dark);
    std::vector<LegendItem> items;
    AxisRange rx, ry;
    for (const ChartFigure::Series& s : f.series) {
        if (s.x.size() != s.y.size())
            throw Error(Errc::Shape, fmt::format("series {} has {} x and {} y values", s.label,
                                                 s.x.size(), s.y.size()));
        items.push_back({s.label, s.colour});
        for (std::size_t i = 0; i < s.x.size(); ++i)
            if (std::isfinite(s.x[i]) && std::isfinite(s.y[i])) {
                rx.add(s.x[i]);
                ry.add(s.y[i]);
            }
    }
    rx.round();
    ry.round();
    const Surround surround({f.title, f.caption, {}}, items, width, height);
    surround.draw(canvas, t, width, height);
    const Box& inner = surround.inner;

    const double plotHeight = inner.h - 4 - kBelow;
    const auto yTicks = linearTicks(ry.lo, ry.hi, plotHeight, 22, false);
    const auto yTitle = wrap(f.yLabel, plotHeight, kSmall);
    const double yWidth = widest(yTicks);
    const double left = double(yTitle.size()) * kSmallLine + 3 + yWidth + 2 + kTick;
    auto xTicks = linearTicks(rx.lo, rx.hi, inner.w - left, 44, f.percentX);
    const double right = widest(xTicks) / 2;
    const Box plot{inner.x + left, inner.y + 4, inner.w - left - right, plotHeight};
    requireRoom(plot);
    xTicks = linearTicks(rx.lo, rx.hi, plot.w, widest(xTicks) + 16, f.percentX);

    const auto toX = [&](double v) { return plot.x + plot.w * (v - rx.lo) / (rx.hi - rx.lo); };
    const auto toY = [&](double v) { return plot.y + plot.h * (ry.hi - v) / (ry.hi - ry.lo); };
    for (const Tick& tick : xTicks) {
        const double x = toX(tick.value);
        canvas.line({{x, plot.y}, {x, plot.y + plot.h}}, 0.4, t.grid);
        drawTickX(canvas, t, plot, x, tick.label);
    }
    for (const Tick& tick : yTicks) {
        const double y = toY(tick.value);
        canvas.line({{plot.x, y}, {plot.x + plot.w, y}}, 0.4, t.grid);
        drawTickY(canvas, t, plot, y, tick.label);
    }
    canvas.line({{plot.x, plot.y}, {plot.x, plot.y + plot.h}, {plot.x + plot.w, plot.y + plot.h}},
                0.6, t.ink);
    canvas.text(plot.x + plot.w / 2, plot.y + plot.h + kBelow - 3, f.xLabel,
                {t.ink, kSmall, false, 0.5});
    double titleX = inner.x + kSmall;
    for (const std::string& l : yTitle) {
        canvas.text(titleX, plot.y + plot.h / 2, l, {t.ink, kSmall, false, 0.5, true});
        titleX += kSmallLine;
    }
    for (const ChartFigure::Series& s : f.series) {
        std::vector<Point> run;  // a value that is not a number interrupts the line
        for (std::size_t i = 0; i < s.x.size(); ++i) {
            if (std::isfinite(s.x[i]) && std::isfinite(s.y[i])) {
                run.push_back({toX(s.x[i]), toY(s.y[i])});
                if (s.x.size() <= 64) canvas.dot(run.back().x, run.back().y, 1.8, s.colour);
            } else {
                canvas.line(run, 1.3, s.colour);
                run.clear();
            }
        }
        canvas.line(run, 1.3, s.colour);
    }
}

double points(double mm) {
    return mm / 25.4 * 72;
}

void checkSize(const FigureSize& size) {
    if (!(size.widthMm > 0 && size.heightMm > 0 && size.dpi > 0) || size.widthMm > 5000 ||
        size.heightMm > 5000)
        throw Error(Errc::Usage, fmt::format("a figure of {} x {} mm at {} dpi cannot be drawn",
                                             size.widthMm, size.heightMm, size.dpi));
}

template <class Figure>
void write(const Figure& figure, const std::filesystem::path& file, const FigureSize& size) {
    checkSize(size);
    std::string ending = file.extension().string();
    for (char& c : ending)
        if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
    const double w = points(size.widthMm), h = points(size.heightMm);
    const FileInfo info{figure.title, figure.caption, figure.metadata};
    const Drawing drawing = [&](Canvas& canvas) { draw(canvas, figure, w, h, size.dark); };
    if (ending == ".png")
        writeFile(file, renderPng(w, h, size.dpi, info, drawing));
    else if (ending == ".svg")
        writeFile(file, renderSvg(w, h, info, drawing));
    else if (ending == ".pdf")
        writeFile(file, renderPdf(w, h, info, drawing));
    else
        throw Error(Errc::Usage, fmt::format("{}: a figure's file must end in .png, .svg or .pdf",
                                             file.string()));
}

}  // namespace

void writeFigure(const MapFigure& figure, const std::filesystem::path& file,
                 const FigureSize& size) {
    checkFigure(figure);
    write(figure, file, size);
}

void writeFigure(const ChartFigure& figure, const std::filesystem::path& file,
                 const FigureSize& size) {
    write(figure, file, size);
}

std::vector<std::uint32_t> previewFigure(const MapFigure& figure, const FigureSize& size,
                                         Index widthPx, Index heightPx) {
    checkFigure(figure);
    checkSize(size);
    const double w = points(size.widthMm), h = points(size.heightMm);
    return renderPixels(w, h, widthPx, heightPx,
                        [&](Canvas& canvas) { draw(canvas, figure, w, h, size.dark); });
}

}  // namespace sparsight
