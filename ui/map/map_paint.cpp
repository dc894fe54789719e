#include "ui/map/map_paint.h"

#include <QPainter>
#include <algorithm>
#include <cmath>

#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr double kLeast = 1e-5;            ///< lower end of the log scale
constexpr std::size_t kManyValues = 1024;  ///< from so many on a table of the scale pays

QRgb premultiplied(const QColor& c, double alpha) {
    return qPremultiply(
        qRgba(c.red(), c.green(), c.blue(), int(std::clamp(alpha, 0.0, 1.0) * 255 + 0.5)));
}

template <class Pixel>
QImage paintEach(std::span<const float> values, Index width, Index height, Pixel pixel) {
    QImage image(int(width), int(height), QImage::Format_ARGB32_Premultiplied);
    for (Index y = 0; y < height; ++y) {
        auto* line = reinterpret_cast<QRgb*>(image.scanLine(int(y)));
        const float* v = values.data() + y * width;
        for (Index x = 0; x < width; ++x) line[x] = pixel(v[x]);
    }
    return image;
}

}  // namespace

QColor withAlpha(QColor colour, double alpha) {
    colour.setAlphaF(float(alpha));
    return colour;
}

const std::array<QRgb, 256>& colourTable(ColourMap map) {
    static const auto tables = [] {
        std::array<std::array<QRgb, 256>, 5> all;
        for (std::size_t m = 0; m < all.size(); ++m)
            for (std::size_t i = 0; i < 256; ++i) {
                const Rgb c = colour(ColourMap(m), double(i) / 255);
                all[m][i] = qRgb(c.r, c.g, c.b);
            }
        return all;
    }();
    return tables[std::size_t(map)];
}

ColourScale probabilityScale(const MapStyle& style) {
    return {style.colours, style.log, style.log ? kLeast : 0.0, 1.0};
}

QImage paintValues(std::span<const float> values, Index width, Index height,
                   const ColourScale& scale) {
    const auto& table = colourTable(scale.map);
    if (values.size() < kManyValues)
        return paintEach(values, width, height, [&](float v) {
            if (!(v >= 0)) return QRgb(0);
            const double t = scale.position(double(v));
            return table[std::size_t(std::clamp(t, 0.0, 1.0) * 255 + 0.5)];
        });
    // Logarithms are dear: the least value of every colour is computed once, then looked up.
    std::array<float, 256> least{};
    for (std::size_t i = 1; i < least.size(); ++i) {
        const double t = (double(i) - 0.5) / 255;
        least[i] = float(scale.log ? scale.lo * std::pow(scale.hi / scale.lo, t)
                                   : scale.lo + t * (scale.hi - scale.lo));
    }
    return paintEach(values, width, height, [&](float v) {
        if (!(v >= 0)) return QRgb(0);
        std::size_t at = 0;
        for (std::size_t step = 128; step > 0; step /= 2)
            if (v >= least[at + step]) at += step;
        return table[at];
    });
}

QImage paintShare(std::span<const float> kept, Index width, Index height, const QColor& colour) {
    std::array<QRgb, 256> table;
    for (std::size_t i = 0; i < 256; ++i)
        table[i] = premultiplied(colour, i ? 0.4 + 0.6 * double(i) / 255 : 0);
    return paintEach(kept, width, height, [&](float v) {
        return v > 0 ? table[std::size_t(std::clamp(v * 254.0f, 0.0f, 254.0f)) + 1] : QRgb(0);
    });
}

QImage paintLost(std::span<const float> lost, Index width, Index height, const ColourScale& scale,
                 const QColor& colour) {
    std::array<QRgb, 256> table;
    for (std::size_t i = 0; i < 256; ++i)
        table[i] = premultiplied(colour, std::pow(double(i) / 255, 1.5));
    return paintEach(lost, width, height, [&](float v) {
        if (!(v > 0)) return QRgb(0);
        return table[std::size_t(std::clamp(scale.position(double(v)), 0.0, 1.0) * 255)];
    });
}

PyramidPicture paintPyramid(const LayerStats& stats, Index head, const MapStyle& style,
                            Index mostBlocks, double pixelTokens, const ColourScale* scale) {
    if (stats.pyramid.empty() || head < 0 || head >= stats.heads) return {};
    std::size_t at = 0;
    while (at + 1 < stats.pyramid.size() && stats.pyramid[at].cols > mostBlocks) ++at;
    const LayerStats::Level& level = stats.pyramid[at];
    const View<const float, 2> sums = stats.sums(at).at(head), maxima = stats.maxima(at).at(head);
    const Index offset = stats.Nk - stats.Nq;
    const double area = double(level.block) * double(level.block);
    std::vector<float> values(std::size_t(level.rows * level.cols));
    for (Index r = 0; r < level.rows; ++r) {
        const Index rows = std::min(level.block, stats.Nq - r * level.block);
        const Index last = r * level.block + rows - 1 + offset;  // position of the lowest row
        for (Index c = 0; c < level.cols; ++c) {
            float& v = values[std::size_t(r * level.cols + c)];
            const float sum = sums(r, c);
            if (c * level.block > last && sum == 0) {
                v = -1;
                continue;
            }
            if (style.pool == kernels::Statistic::Max) {
                v = maxima(r, c);
            } else if (style.pool == kernels::Statistic::Sum) {
                v = sum * float(pixelTokens > 0 ? pixelTokens * pixelTokens / area : 1);
            } else {
                const Index keys = std::min(level.block, stats.Nk - c * level.block);
                const bool diagonal = (c + 1) * level.block > r * level.block + offset + 1;
                const double pairs = double(rows * keys) * (diagonal ? 0.5 : 1.0);
                v = pairs > 0 ? float(sum / pairs) : 0;
            }
        }
    }
    PyramidPicture picture;
    picture.block = level.block;
    picture.image = paintValues(values, level.cols, level.rows,
                                scale ? *scale : fitScale(style.colours, style.log, values));
    return picture;
}

QString tickText(double value) {
    if (value == 0) return QStringLiteral("0");
    if (value >= 0.01 && value < 10000) return QString::number(value, 'g', 3);
    const int power = int(std::floor(std::log10(value) + 1e-9));
    const double digits = value / std::pow(10.0, power);
    return std::abs(digits - 1) < 0.01 ? QStringLiteral("1e%1").arg(power)
                                       : QStringLiteral("%1e%2").arg(digits, 0, 'f', 1).arg(power);
}

std::vector<double> scaleTicks(const ColourScale& scale) {
    std::vector<double> ticks;
    if (scale.log) {
        const int from = int(std::ceil(std::log10(scale.lo) - 1e-9)),
                  to = int(std::floor(std::log10(scale.hi) + 1e-9));
        for (int p = from; p <= to; ++p) ticks.push_back(std::pow(10.0, p));
    } else {
        for (int i = 0; i <= 4; ++i) ticks.push_back(scale.lo + (scale.hi - scale.lo) * i / 4);
    }
    return ticks;
}

void drawColourBar(QPainter& painter, const QRectF& bar, const ColourScale& scale) {
    const auto& table = colourTable(scale.map);
    QImage strip(1, 256, QImage::Format_RGB32);
    for (int y = 0; y < 256; ++y) strip.setPixel(0, y, table[std::size_t(255 - y)]);
    painter.drawImage(bar, strip);
    painter.setFont(smallFont());
    painter.setPen(theme().muted);
    const double height = painter.fontMetrics().height();
    for (const double tick : scaleTicks(scale)) {
        const double y = bar.bottom() - std::clamp(scale.position(tick), 0.0, 1.0) * bar.height();
        painter.drawLine(QPointF(bar.right() + 2, y), QPointF(bar.right() + 5, y));
        painter.drawText(QRectF(bar.right() + 9, y - height / 2, 60, height),
                         Qt::AlignLeft | Qt::AlignVCenter, tickText(tick));
    }
}

double niceStep(double least) {
    if (!(least > 1)) return 1;
    const double power = std::pow(10.0, std::floor(std::log10(least)));
    for (const double m : {1.0, 2.0, 5.0})
        if (m * power >= least) return m * power;
    return 10 * power;
}

QString visibleToken(const QString& text) {
    QString shown = text;
    shown.replace(QLatin1Char('\n'), QStringLiteral("⏎"));
    shown.replace(QLatin1Char('\t'), QStringLiteral("⇥"));
    if (shown.startsWith(QLatin1Char(' '))) shown[0] = QChar(0x00b7);
    return shown;
}

}  // namespace sparsight::ui
