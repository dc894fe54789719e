// What the map tells about one pair of tokens.
#include <QPainter>
#include <QTextDocument>
#include <algorithm>
#include <cmath>

#include "ui/map/map_view.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr double kCardWidth = 320, kCardHeight = 136;  ///< room of the read-out in the corner

}  // namespace

QStringList MapView::readout(const Cell& cell) const {
    const auto quoted = [](const QString& text) {
        return QStringLiteral("“%1”").arg(visibleToken(text).toHtmlEscaped());
    };
    QStringList lines{
        QStringLiteral("<b>%1 → %2</b>")
            .arg(tr("query %1 %2")
                     .arg(thousands(cell.query), quoted(m_document->rowText(cell.query))),
                 tr("key %1 %2").arg(thousands(cell.key), quoted(m_document->keyText(cell.key))))};
    const Index past = m_document->keys() - m_document->rows();
    const Index seen = m_document->causal() ? cell.query + past + 1 : m_document->keys();
    if (cell.key >= seen) {
        lines << tr("a later token: this row cannot see it");
        return lines;
    }
    const Row* r = row(cell.query);
    if (!r || std::size_t(cell.key) >= r->p.size()) {
        lines << (m_failures.contains(Part::Row) ? tr("the row cannot be read")
                                                 : tr("reading the row …"));
    } else {
        const double p = double(r->p[std::size_t(cell.key)]);
        const auto rank =
            1 + std::count_if(r->p.begin(), r->p.end(),
                              [v = r->p[std::size_t(cell.key)]](float o) { return o > v; });
        lines << tr("probability <b>%1</b>&nbsp; ln %2&nbsp; rank %3 of %4")
                     .arg(p, 0, 'g', 6)
                     .arg(p > 0 ? QString::number(std::log(p), 'g', 6) : QStringLiteral("−∞"))
                     .arg(thousands(qint64(rank)), thousands(seen));
    }
    const auto stats = m_document->stats(m_document->layer());
    if (stats) {
        const auto column = std::size_t(m_head.head * stats->Nk + cell.key);
        const auto rowAt = std::size_t(m_head.head * stats->Nq + cell.query);
        QStringList facts;
        if (column < stats->colMass.size())
            facts << tr("column mass %1").arg(double(stats->colMass[column]), 0, 'g', 4);
        if (rowAt < stats->entropy.size())
            facts << tr("row entropy %1 nats").arg(double(stats->entropy[rowAt]), 0, 'f', 2);
        lines << QStringLiteral("<span style='color:%1'>%2</span>")
                     .arg(theme().muted.name(), facts.join(QStringLiteral(" · ")));
    }
    kernels::Problem problem;  // visibility alone: the layer's own window is in the policies' clip
    problem.Nq = m_document->rows();
    problem.Nk = m_document->keys();
    problem.causal = m_document->causal();
    QStringList kept;
    std::vector<kernels::Range> ranges;
    for (int i = 0; i < int(m_document->masks().size()); ++i) {
        const MaskLayer& m = m_document->masks()[std::size_t(i)];
        const auto policy = m_document->policy(i);
        if (!m.visible || !policy) continue;
        kernels::keptRanges(*policy, problem, cell.query, ranges);
        const bool in = std::any_of(ranges.begin(), ranges.end(), [&](const kernels::Range& range) {
            return cell.key >= range.begin && cell.key < range.end;
        });
        kept << QStringLiteral("<span style='color:%1'>■</span> %2: %3")
                    .arg(m.colour.name(), QString::fromStdString(m.spec.id),
                         in ? tr("yes") : tr("no"));
    }
    if (!kept.isEmpty())
        lines << tr("kept by&nbsp; %1").arg(kept.join(QStringLiteral("&nbsp;&nbsp; ")));
    if (const auto metrics = m_document->metrics(m_document->activeMask());
        metrics && std::size_t(cell.query) < metrics->rowRecall.size())
        lines << tr("lost mass of this row: <b style='color:%1'>%2</b>")
                     .arg(theme().lost.name())
                     .arg(std::max(0.0, 1 - double(metrics->rowRecall[std::size_t(cell.query)])), 0,
                          'f', 4);
    return lines;
}

bool MapView::cornerCard() const {
    const QPointF corner = toTokens(m_plot.topRight() + QPointF(-kCardWidth, kCardHeight));
    return corner.x() > corner.y();
}

void MapView::paintReadout(QPainter& p) const {
    std::optional<Cell> cell = m_hover;
    if (!cell && m_document->query() >= 0 && m_document->key() >= 0)
        cell = Cell{m_document->query(), m_document->key()};
    if (!cell) return;
    QTextDocument text;
    text.setDocumentMargin(0);
    text.setDefaultFont(smallFont());
    text.setDefaultStyleSheet(
        QStringLiteral("p { color: %1; margin: 0 0 3px 0; }").arg(theme().text.name()));
    QString html;
    for (const QString& line : readout(*cell))
        html += QStringLiteral("<p>") + line + QStringLiteral("</p>");
    text.setHtml(html);
    text.setTextWidth(std::min(text.idealWidth(), 400.0));
    const QSizeF size(text.idealWidth() + 22, text.size().height() + 16);
    QRectF box(QPointF(), size);
    if (m_hover) {
        // Never over the row or the column under study: beside the cursor's cross, in the quarter
        // with room.
        const double gap = 18;
        const bool right = m_hoverAt.x() + gap + size.width() < width() - 4;
        const bool above = m_hoverAt.y() - gap - size.height() > 4;
        box.moveTopLeft(
            {right ? m_hoverAt.x() + gap : std::max(4.0, m_hoverAt.x() - gap - size.width()),
             above ? m_hoverAt.y() - gap - size.height() : m_hoverAt.y() + gap});
    } else {
        // In the empty corner above the diagonal, when there is one.
        box.moveTopRight(m_plot.topRight() + QPointF(-10, 14));
        if (!cornerCard()) return;
    }
    p.setRenderHint(QPainter::Antialiasing);
    p.setPen(QPen(theme().line, 1));
    p.setBrush(withAlpha(theme().raised, 0.97));
    p.drawRoundedRect(box, 6, 6);
    p.translate(box.topLeft() + QPointF(11, 8));
    text.drawContents(&p);
    p.resetTransform();
}

}  // namespace sparsight::ui
