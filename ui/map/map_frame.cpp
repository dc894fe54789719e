// What stands around and over the map: rulers, cross-hair, colour bar and legend, minimap.
#include <QPainter>
#include <QPainterPath>
#include <algorithm>
#include <cmath>

#include "ui/map/map_view.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {

void MapView::paintRulers(QPainter& p) const {
    paintRuler(p, true);
    paintRuler(p, false);
    // Needle and answer as bands along the edges of the map.
    if (const auto& truth = m_document->capture().truth) {
        const auto band = [&](const TokenSpan& span, const QColor& colour, bool rows) {
            const QRectF t = rows ? toScreen({0, double(span.begin), 1, double(span.size())})
                                  : toScreen({double(span.begin), 0, double(span.size()), 1});
            const double from = rows ? t.top() : t.left(),
                         size = std::max(3.0, rows ? t.height() : t.width());
            const double begin = std::max(from, rows ? m_plot.top() : m_plot.left()),
                         end = std::min(from + size, rows ? m_plot.bottom() : m_plot.right());
            if (end <= begin) return;
            p.fillRect(rows ? QRectF(m_plot.left() - 4, begin, 3, end - begin)
                            : QRectF(begin, m_plot.top() - 4, end - begin, 3),
                       colour);
        };
        for (const bool rows : {true, false}) {
            band(truth->needle, theme().warning, rows);
            band(truth->answer, theme().accent, rows);
        }
    }
}

void MapView::paintRuler(QPainter& p, bool rows) const {
    const MapRect& v = m_document->view();
    const double from = rows ? v.q0 : v.k0, to = rows ? v.q1 : v.k1;
    const double length = rows ? m_plot.height() : m_plot.width();
    const double ppt = length / (to - from);
    const Index n = rows ? m_document->rows() : m_document->keys();
    p.setFont(smallFont());
    const QFontMetricsF fm(p.font());
    const auto at = [&](double token) {
        return (rows ? m_plot.top() : m_plot.left()) + (token - from) * ppt;
    };
    p.save();
    if (rows)
        p.setClipRect(QRectF(0, m_plot.top() - 8, m_plot.left(), m_plot.height() + 16));
    else
        p.setClipRect(QRectF(m_plot.left() - 8, 0, m_plot.width() + 60, m_plot.top()));
    const Index selected = rows ? m_document->query() : m_document->key();
    const Index hovered = m_hover ? (rows ? m_hover->query : m_hover->key) : -1;
    if (tokenTexts(rows)) {
        for (Index t = Index(std::floor(from)); double(t) < to && t < n; ++t) {
            if (t < 0) continue;
            const double centre = at(double(t) + 0.5);
            if (centre < (rows ? m_plot.top() : m_plot.left()) ||
                centre > (rows ? m_plot.bottom() : m_plot.right()))
                continue;
            const bool marked = t == selected || t == hovered;
            const QString index = thousands(t);
            const double room =
                (rows ? kRulerTextLeft : kRulerTextTop) - 14 - fm.horizontalAdvance(index) - 6;
            const QString text =
                fm.elidedText(visibleToken(rows ? m_document->rowText(t) : m_document->keyText(t)),
                              Qt::ElideRight, room);
            p.save();
            if (rows) {
                p.translate(m_plot.left() - 8, centre);
            } else {
                p.translate(centre, m_plot.top() - 8);
                p.rotate(90);
            }
            // The text stands next to the map, the number outside of it.
            const double h = fm.height();
            const QRectF box(-200, -h / 2, 200, h);
            p.setPen(t == selected ? theme().accent : theme().text);
            p.drawText(box, Qt::AlignRight | Qt::AlignVCenter, text);
            p.setPen(marked ? theme().text : theme().muted);
            p.drawText(box.adjusted(0, 0, -fm.horizontalAdvance(text) - 6, 0),
                       Qt::AlignRight | Qt::AlignVCenter, index);
            p.restore();
        }
        p.restore();
        return;
    }
    const double step = niceStep((rows ? 44 : fm.horizontalAdvance(thousands(n)) + 26) / ppt);
    const double h = fm.height();
    const auto label = [&](double token, bool chip) {
        const double pos = at(chip ? token + 0.5 : token);
        const QString text = thousands(qint64(std::llround(token)));
        const double w = fm.horizontalAdvance(text);
        QRectF box = rows ? QRectF(m_plot.left() - 9 - w, pos - h / 2, w, h)
                          : QRectF(pos - w / 2, m_plot.top() - 8 - h, w, h);
        if (rows)
            box.moveTop(std::clamp(box.top(), m_plot.top() - 6, m_plot.bottom() - h + 6));
        else
            box.moveLeft(std::clamp(box.left(), m_plot.left() - 4, m_plot.right() - w + 4));
        if (chip) {
            p.setRenderHint(QPainter::Antialiasing);
            p.setPen(Qt::NoPen);
            p.setBrush(theme().accent);
            p.drawRoundedRect(box.adjusted(-4, 0, 4, 0), 3, 3);
            p.setPen(theme().onAccent);
        } else {
            p.setPen(theme().muted);
        }
        p.drawText(box, Qt::AlignCenter, text);
        return box;
    };
    const bool inside = selected >= 0 && double(selected) >= from && double(selected) < to;
    const double clear = rows ? h + 2 : 46;
    for (double t = std::ceil(from / step) * step; t < to; t += step) {
        if (inside && std::abs(at(t) - at(double(selected) + 0.5)) < clear) continue;
        if (rows ? at(t) > m_plot.bottom() - 2 : at(t) > m_plot.right() - 2) continue;
        label(t, false);
        p.setPen(theme().line);
        const double x = std::floor(at(t)) + 0.5;
        if (rows)
            p.drawLine(QPointF(m_plot.left() - 6, x), QPointF(m_plot.left() - 1, x));
        else
            p.drawLine(QPointF(x, m_plot.top() - 6), QPointF(x, m_plot.top() - 1));
    }
    if (inside) label(double(selected), true);
    p.restore();
}

void MapView::paintDecodeLine(QPainter& p) const {
    const sessions::CaptureInfo& c = m_document->capture();
    if (c.generated() == 0 || m_document->rows() != m_document->keys()) return;
    const double prefill = double(c.prefill);
    const QRectF below = toScreen({0, prefill, prefill, double(c.generated())});
    p.save();
    p.setClipRect(m_plot);
    p.setRenderHint(QPainter::Antialiasing, false);
    QPen pen(theme().warning, 1, Qt::DashLine);
    pen.setCosmetic(true);
    p.setPen(pen);
    // Down from the diagonal, and right to it: beyond it is no data.
    p.drawLine(below.topLeft(), below.topRight());
    p.drawLine(below.topRight(), below.bottomRight());
    p.setFont(smallFont());
    const QFontMetricsF fm(p.font());
    const auto label = [&](const QString& text, double top) {
        const double w = fm.horizontalAdvance(text) + 10, h = fm.height() + 2;
        const double left = std::max(m_plot.left(), below.left()) + 6;
        p.fillRect(QRectF(left, top, w, h), theme().panel);
        p.setPen(theme().text);
        p.drawText(QRectF(left, top, w, h), Qt::AlignCenter, text);
    };
    const double h = fm.height() + 2, line = below.top();
    if (line - h - 3 > m_plot.top() && line < m_plot.bottom() + h)
        label(tr("prefill"), line - h - 3);
    if (line > m_plot.top() - h && line + h + 3 < m_plot.bottom())
        label(tr("decode · %1 tokens").arg(thousands(c.generated())), line + 3);
    p.restore();
}

void MapView::paintCrossHair(QPainter& p) const {
    p.save();
    p.setClipRect(m_plot);
    p.setRenderHint(QPainter::Antialiasing, false);
    const Index rows = m_document->rows(), keys = m_document->keys(), past = keys - rows;
    const bool causal = m_document->causal();
    const auto lines = [&](Index query, Index key, const QColor& colour, Qt::PenStyle style) {
        p.setPen(QPen(colour, 1, style));
        p.setBrush(Qt::NoBrush);
        // From the ruler to the diagonal, and no farther: beyond it is no data.
        if (query >= 0) {
            const double end = double(causal ? std::clamp<Index>(query + past + 1, 0, keys) : keys);
            const QRectF r = toScreen({0, double(query), end, 1});
            if (r.height() >= 6) {
                p.drawRect(r);
            } else {
                const double y = std::floor(r.center().y()) + 0.5;
                p.drawLine(QPointF(r.left(), y), QPointF(r.right(), y));
            }
        }
        if (key >= 0) {
            const double top = double(causal ? std::clamp<Index>(key - past, 0, rows) : 0);
            const QRectF r = toScreen({double(key), top, 1, double(rows) - top});
            if (r.width() >= 6) {
                p.drawRect(r);
            } else {
                const double x = std::floor(r.center().x()) + 0.5;
                p.drawLine(QPointF(x, r.top()), QPointF(x, r.bottom()));
            }
        }
    };
    if (m_hover) lines(m_hover->query, m_hover->key, withAlpha(theme().text, 0.4), Qt::DotLine);
    lines(m_document->query(), m_document->key(), withAlpha(theme().accent, 0.9), Qt::SolidLine);
    if (m_document->query() >= 0 && m_document->key() >= 0) {
        QRectF cell = toScreen({double(m_document->key()), double(m_document->query()), 1, 1});
        if (cell.width() < 9) {
            p.setRenderHint(QPainter::Antialiasing);
            const QPointF c = cell.center();
            cell = {c.x() - 4.5, c.y() - 4.5, 9, 9};
            p.setPen(QPen(theme().accent, 1.5));
            p.drawEllipse(cell);
        } else {
            p.setPen(QPen(theme().accent, 2));
            p.drawRect(cell);
        }
    }
    p.restore();
}

void MapView::paintSide(QPainter& p) const {
    const ColourScale scale =
        m_exact.values ? m_exact.scale : probabilityScale(m_document->style());
    drawColourBar(p, m_bar, scale);
    double y = m_legendTop;
    const double limit = zoomedIn() ? m_minimap.top() - 22 : m_plot.bottom();
    p.setRenderHint(QPainter::Antialiasing);
    p.setFont(smallFont());
    const QFontMetricsF fm(p.font());
    const auto entry = [&](const QColor& colour, double alpha, const QString& name) {
        if (y + 16 > limit) return;
        p.setPen(QPen(colour, 1.2));
        p.setBrush(withAlpha(colour, alpha));
        p.drawRoundedRect(QRectF(m_side.left() + 0.5, y + 2.5, 11, 11), 2, 2);
        p.setPen(theme().text);
        const double room = width() - m_side.left() - 18 - 6;
        p.drawText(QRectF(m_side.left() + 18, y, room, 16), Qt::AlignLeft | Qt::AlignVCenter,
                   fm.elidedText(name, Qt::ElideRight, room));
        y += 20;
    };
    for (const MaskLayer& m : m_document->masks())
        if (m.visible) entry(m.colour, m.opacity, QString::fromStdString(m.spec.id));
    if (m_document->style().showLost && m_document->activeMask() >= 0)
        entry(theme().lost, 0.8, tr("lost mass"));
    paintSelected(p, y + 8, limit);
}

void MapView::paintSelected(QPainter& p, double y, double limit) const {
    const Index query = m_document->query(), key = m_document->key();
    const Row* r = row(query);
    if (cornerCard() || m_hover || query < 0 || key < 0 || !r) return;
    const QFontMetricsF fm(p.font());
    const double height = fm.height() + 3, room = width() - m_side.left() - 6;
    if (y + 3 * height > limit) return;
    const std::pair<QString, QColor> lines[] = {
        {tr("query %1").arg(thousands(query)), theme().muted},
        {tr("key %1").arg(thousands(key)), theme().muted},
        {key > query ? tr("not seen") : tr("p %1").arg(double(r->p[std::size_t(key)]), 0, 'g', 6),
         theme().text}};
    for (const auto& [text, colour] : lines) {
        p.setPen(colour);
        p.drawText(QRectF(m_side.left(), y, room, height), Qt::AlignLeft | Qt::AlignVCenter,
                   fm.elidedText(text, Qt::ElideRight, room));
        y += height;
    }
}

void MapView::paintMinimap(QPainter& p) const {
    if (m_minimap.width() < 40) return;
    p.setRenderHint(QPainter::Antialiasing, false);
    p.fillRect(m_minimap, theme().mapBackground);
    if (!m_coarse.isNull()) {
        const double scaleX = m_minimap.width() / double(m_document->keys()),
                     scaleY = m_minimap.height() / double(m_document->rows());
        p.save();
        if (m_document->causal() && m_document->rows() == m_document->keys()) {
            QPainterPath below;
            below.moveTo(m_minimap.topLeft());
            below.lineTo(m_minimap.bottomRight());
            below.lineTo(m_minimap.bottomLeft());
            p.setClipPath(below);
        }
        p.setRenderHint(QPainter::SmoothPixmapTransform);
        if (!m_wholeSmall.isNull()) {
            p.drawImage(m_minimap, m_wholeSmall);
        } else
            p.drawImage(QRectF(m_minimap.left(), m_minimap.top(),
                               m_coarse.image.width() * double(m_coarse.block) * scaleX,
                               m_coarse.image.height() * double(m_coarse.block) * scaleY),
                        m_coarse.image);
        p.restore();
    }
    p.setBrush(Qt::NoBrush);
    p.setPen(theme().line);
    p.drawRect(m_minimap);
    const MapRect& v = m_document->view();
    const double sx = m_minimap.width() / double(m_document->keys()),
                 sy = m_minimap.height() / double(m_document->rows());
    QRectF view(m_minimap.left() + v.k0 * sx, m_minimap.top() + v.q0 * sy, (v.k1 - v.k0) * sx,
                (v.q1 - v.q0) * sy);
    if (view.width() < 5) view = QRectF(view.center().x() - 2.5, view.center().y() - 2.5, 5, 5);
    p.setPen(QPen(theme().accent, 1.5));
    p.setBrush(withAlpha(theme().accent, 0.12));
    p.drawRect(view.intersected(m_minimap.adjusted(-1, -1, 1, 1)));
    p.setPen(theme().muted);
    p.setFont(smallFont());
    p.drawText(QPointF(m_minimap.left(), m_minimap.top() - 6), tr("minimap"));
}

}  // namespace sparsight::ui
