#include "ui/map/token_view.h"

#include <QElapsedTimer>
#include <QHBoxLayout>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QLabel>
#include <QMouseEvent>
#include <QPainter>
#include <QPushButton>
#include <QScrollBar>
#include <QToolTip>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "ui/engine.h"
#include "ui/map/map_paint.h"
#include "ui/shell/theme.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr int kPad = 12, kLeading = 7;
constexpr double kFaintest = 1e-3;  ///< probability from which a background is seen

/// Strength of a token's background.
double strength(double p) {
    if (!(p > kFaintest)) return 0;
    return std::clamp(1 - std::log10(p) / std::log10(kFaintest), 0.0, 1.0);
}

QColor mixed(const QColor& over, const QColor& under, double share) {
    const auto mix = [share](int a, int b) { return int(share * a + (1 - share) * b + 0.5); };
    return {mix(over.red(), under.red()), mix(over.green(), under.green()),
            mix(over.blue(), under.blue())};
}

const QColor kHeat(0xe6, 0x9f, 0x00);
const QColor kOnHeat(0x14, 0x16, 0x1a);

}  // namespace

TokenView::TokenView(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("tokenView"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(2);
    auto* row = new QHBoxLayout;
    row->setContentsMargins(12, 0, 8, 0);
    row->setSpacing(4);
    m_title = new QLabel(this);
    m_title->setObjectName(QStringLiteral("tokenTitle"));
    m_title->setProperty("role", "muted");
    m_title->setMinimumWidth(40);
    m_title->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
    row->addWidget(m_title, 1);
    const auto button = [&](const char* name, const QString& text, const QString& help, bool key) {
        auto* b = new QPushButton(text, this);
        b->setObjectName(QLatin1String(name));
        b->setAccessibleName(help);
        b->setToolTip(help);
        b->setCheckable(true);
        b->setStyleSheet(QStringLiteral("font-size: 12px; padding: 1px 10px;"));
        connect(b, &QPushButton::clicked, this, [this, key] { setKeyMode(key); });
        row->addWidget(b);
        return b;
    };
    m_query = button("tokenQuery", tr("Query"),
                     tr("Background: what the selected query reads; a click selects a query "
                        "(default)"),
                     false);
    m_key =
        button("tokenKey", tr("Key"),
               tr("Background: which tokens read the selected key; a click selects a key"), true);
    column->addLayout(row);
    m_text = new TokenText(m_document, this);
    m_text->setObjectName(QStringLiteral("tokenText"));
    m_text->setAccessibleName(tr("Prompt text"));
    column->addWidget(m_text, 1);

    connect(m_text, &TokenText::clicked, this, [this](Index token, bool otherWay) {
        if (m_keyMode != otherWay)
            m_document->selectKey(token);
        else
            m_document->selectQuery(token);
    });
    connect(document, &Document::captureChanged, this, [this] {
        m_text->reset();
        refresh();
    });
    connect(document, &Document::headChanged, this, &TokenView::refresh);
    connect(document, &Document::queryChanged, this, [this] {
        if (m_keyMode)
            m_text->viewport()->update();
        else
            refresh();
        m_text->reveal(m_document->query());
    });
    connect(document, &Document::keyChanged, this, [this] {
        if (!m_keyMode) {
            m_text->viewport()->update();
            return;
        }
        refresh();
        m_text->reveal(m_document->key());
    });
    setKeyMode(false);
}

bool TokenView::event(QEvent* event) {
    if (event->type() == QEvent::PaletteChange) m_text->viewport()->update();
    return QWidget::event(event);
}

void TokenView::setKeyMode(bool on) {
    m_keyMode = on;
    m_query->setChecked(!on);
    m_key->setChecked(on);
    m_text->setKeyMode(on);
    refresh();
}

void TokenView::refreshTitle() {
    const Index at = m_keyMode ? m_document->key() : m_document->query();
    QString text;
    if (!m_document->isOpen())
        text = tr("The prompt's text stands here when a session is open.");
    else if (at < 0)
        text = m_keyMode ? tr("Click a token to see which tokens read it.")
                         : tr("Click a token to see what it reads.");
    else
        text = (m_keyMode ? tr("key %1 “%2” · who reads it, as background")
                          : tr("query %1 “%2” · attention of this row as background"))
                   .arg(thousands(at), visibleToken(m_document->tokenText(at)));
    m_title->setText(text);
    m_title->setToolTip(text);
}

void TokenView::refresh() {
    refreshTitle();
    m_head = selectedHead(*m_document);
    const Index at = m_keyMode ? m_document->key() : m_document->query();
    if (!m_head.valid() || at < 0) {
        m_engine->stop(QStringLiteral("tokens"));
        m_text->setProbabilities({});
        return;
    }
    auto work = [head = m_head, at, column = m_keyMode,
                 backend = m_engine->backend(Engine::Quick)](const Job& job) {
        return column ? readColumn(head, at, *backend, job) : readRow(head, at);
    };
    m_engine->run(Engine::Quick, QStringLiteral("tokens"), std::move(work))
        .then(this,
              [this, head = m_head, at, column = m_keyMode](const std::vector<float>& p) {
                  if (head.same(m_head) && column == m_keyMode &&
                      at == (column ? m_document->key() : m_document->query()))
                      m_text->setProbabilities(p);
              })
        .onFailed(this, [this](const std::exception&) { m_text->setProbabilities({}); });
}

TokenText::TokenText(Document* document, QWidget* parent)
    : QAbstractScrollArea(parent), m_document(document) {
    setFrameShape(QFrame::NoFrame);
    setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    setFocusPolicy(Qt::StrongFocus);
    viewport()->setCursor(Qt::IBeamCursor);
    viewport()->setAutoFillBackground(false);
    verticalScrollBar()->setSingleStep(lineHeight());
}

int TokenText::lineHeight() const {
    return QFontMetrics(bodyFont()).height() + kLeading;
}

void TokenText::setProbabilities(std::vector<float> p) {
    m_p = std::move(p);
    viewport()->update();
}

void TokenText::setKeyMode(bool on) {
    m_keyMode = on;
    viewport()->update();
}

void TokenText::reset() {
    m_tokens.clear();
    m_p.clear();
    m_laidOutWidth = -1;
    verticalScrollBar()->setValue(0);
    layOut();
    viewport()->update();
}

void TokenText::layOut() {
    const int width = viewport()->width();
    const Index n = m_document->tokens();
    if (width < 40 || (m_laidOutWidth == width && Index(m_tokens.size()) == n)) return;
    QElapsedTimer timer;
    timer.start();
    m_laidOutWidth = width;
    const QFontMetricsF fm(bodyFont());
    if (Index(m_tokens.size()) != n) {
        m_tokens.assign(std::size_t(n), {});
        QHash<QString, float> widths;  // a prompt repeats its tokens
        const auto& offsets = m_document->capture().offsets;
        for (Index i = 0; i < n; ++i) {
            Token& t = m_tokens[std::size_t(i)];
            const auto at = std::size_t(i);
            // The bytes of one character may be several tokens: the first shows it.
            const bool again = i > 0 && at < offsets.size() &&
                               offsets[at].byteBegin == offsets[at - 1].byteBegin &&
                               offsets[at].byteEnd == offsets[at - 1].byteEnd;
            t.text = again ? QString() : m_document->tokenText(i);
            t.text.replace(QLatin1Char('\t'), QStringLiteral("    "));
            QString shown = t.text;
            shown.replace(QLatin1Char('\n'), QStringLiteral("⏎"));
            auto known = widths.constFind(shown);
            if (known == widths.constEnd())
                known = widths.insert(shown, float(std::max(3.0, fm.horizontalAdvance(shown))));
            t.width = *known;
        }
    }
    m_lineBegin.assign(1, 0);
    float x = 0;
    const float room = float(width - 2 * kPad),
                blank = float(fm.horizontalAdvance(QLatin1Char(' ')));
    int line = 0;
    const auto breakAt = [&](Index token) {
        ++line;
        x = 0;
        m_lineBegin.push_back(token);
    };
    for (Index i = 0; i < n; ++i) {
        Token& t = m_tokens[std::size_t(i)];
        if (x > 0 && (t.text.startsWith(QLatin1Char(' ')) || i == 0)) {
            // The whole word decides: its further tokens start without a blank.
            float word = t.width;
            for (Index j = i + 1; j < n && word < room; ++j) {
                const QString& next = m_tokens[std::size_t(j)].text;
                if (next.isEmpty() || !next.at(0).isLetterOrNumber()) break;
                word += m_tokens[std::size_t(j)].width;
            }
            if (x + word > room) breakAt(i);
        }
        if (x > 0 && x + t.width > room) breakAt(i);
        // A blank at the start of a line hangs out of it.
        t.x = x > 0 || i == 0 || !t.text.startsWith(QLatin1Char(' ')) ? x : -blank;
        t.line = line;
        x = t.x + t.width;
        if (t.text.contains(QLatin1Char('\n')) && i + 1 < n) breakAt(i + 1);
    }
    const int height = n > 0 ? (line + 1) * lineHeight() + kPad : 0;
    verticalScrollBar()->setPageStep(viewport()->height());
    verticalScrollBar()->setRange(0, std::max(0, height - viewport()->height()));
    uiLog(QStringLiteral("layout"), {{QStringLiteral("what"), QStringLiteral("text")},
                                     {QStringLiteral("tokens"), qint64(n)},
                                     {QStringLiteral("took"), double(timer.nsecsElapsed()) / 1e6}});
}

void TokenText::reveal(Index token) {
    layOut();
    if (token < 0 || token >= Index(m_tokens.size())) return;
    const int top = m_tokens[std::size_t(token)].line * lineHeight();
    QScrollBar* bar = verticalScrollBar();
    if (top < bar->value() || top + lineHeight() > bar->value() + viewport()->height())
        bar->setValue(top + lineHeight() / 2 - viewport()->height() / 2);
    viewport()->update();
}

void TokenText::resizeEvent(QResizeEvent* event) {
    QAbstractScrollArea::resizeEvent(event);
    layOut();
    verticalScrollBar()->setPageStep(viewport()->height());
    if (!m_tokens.empty()) {
        const int height = int(m_lineBegin.size()) * lineHeight() + kPad;
        verticalScrollBar()->setRange(0, std::max(0, height - viewport()->height()));
    }
    reveal(m_keyMode ? m_document->key() : m_document->query());
}

void TokenText::paintEvent(QPaintEvent*) {
    QElapsedTimer timer;
    timer.start();
    QPainter p(viewport());
    const Theme& t = theme();
    p.fillRect(viewport()->rect(), t.panel);
    if (m_tokens.empty()) return;
    p.setFont(bodyFont());
    const QFontMetricsF fm(p.font());
    const int height = lineHeight(), scrolled = verticalScrollBar()->value();
    const int from = std::clamp(scrolled / height, 0, int(m_lineBegin.size()) - 1);
    const auto& truth = m_document->capture().truth;
    const Index own = m_keyMode ? m_document->key() : m_document->query();
    const Index other = m_keyMode ? m_document->query() : m_document->key();
    p.setRenderHint(QPainter::Antialiasing);
    const auto box = [&](Index i) {
        const Token& k = m_tokens[std::size_t(i)];
        return QRectF(double(kPad + k.x), k.line * height - scrolled + 2.0, double(k.width),
                      height - 4.0);
    };
    Index last = m_lineBegin[std::size_t(from)];
    for (Index i = last; i < Index(m_tokens.size()); ++i, last = i) {
        const QRectF r = box(i);
        if (r.top() > viewport()->height()) break;
        const double s = std::size_t(i) < m_p.size() ? strength(double(m_p[std::size_t(i)])) : 0;
        const double share = s * s * 0.95;
        if (share > 0.01) {
            p.setPen(Qt::NoPen);
            p.setBrush(mixed(kHeat, t.panel, share));
            p.drawRect(r);
        }
        const Token& k = m_tokens[std::size_t(i)];
        QString shown = k.text;
        shown.replace(QLatin1Char('\n'), QStringLiteral("⏎"));
        const bool seen = m_keyMode ? i >= own || own < 0 : i <= own || own < 0;
        p.setPen(share > 0.45 ? kOnHeat : shown == QStringLiteral("⏎") || !seen ? t.muted : t.text);
        p.drawText(QPointF(r.left(), r.top() + (r.height() - fm.height()) / 2 + fm.ascent()),
                   shown);
        if (truth && (truth->needle.contains(i) || truth->answer.contains(i)))
            p.fillRect(QRectF(r.left(), r.bottom() - 1, r.width(), 2),
                       truth->needle.contains(i) ? t.warning : t.accent);
    }
    p.setBrush(Qt::NoBrush);
    for (const auto& [token, pen] :
         {std::pair(other, QPen(t.muted, 1.2, Qt::DashLine)), std::pair(own, QPen(t.accent, 2))}) {
        if (token < 0 || token >= Index(m_tokens.size())) continue;
        p.setPen(pen);
        p.drawRoundedRect(box(token).adjusted(-1, -0.5, 1, 0.5), 3, 3);
    }
    uiLog(QStringLiteral("paint"), {{QStringLiteral("what"), QStringLiteral("text")},
                                    {QStringLiteral("took"), double(timer.nsecsElapsed()) / 1e6}});
}

Index TokenText::tokenAt(const QPoint& point) const {
    if (m_tokens.empty()) return -1;
    const int line = (point.y() + verticalScrollBar()->value()) / lineHeight();
    if (line < 0 || std::size_t(line) >= m_lineBegin.size()) return -1;
    const Index end = std::size_t(line) + 1 < m_lineBegin.size()
                          ? m_lineBegin[std::size_t(line) + 1]
                          : Index(m_tokens.size());
    for (Index i = m_lineBegin[std::size_t(line)]; i < end; ++i) {
        const Token& t = m_tokens[std::size_t(i)];
        const float x = float(point.x() - kPad);
        if (x >= t.x && x < t.x + t.width) return i;
    }
    return -1;
}

void TokenText::mousePressEvent(QMouseEvent* event) {
    const Index token = tokenAt(event->pos());
    if (token >= 0 && event->button() == Qt::LeftButton)
        emit clicked(token, event->modifiers() & (Qt::ShiftModifier | Qt::AltModifier));
}

void TokenText::keyPressEvent(QKeyEvent* event) {
    const Index at = m_keyMode ? m_document->key() : m_document->query();
    const int step = event->key() == Qt::Key_Left ? -1 : event->key() == Qt::Key_Right ? 1 : 0;
    if (step == 0) {
        QAbstractScrollArea::keyPressEvent(event);
        return;
    }
    const Index to = std::clamp<Index>(at + step, 0, std::max<Index>(0, m_document->tokens() - 1));
    emit clicked(to, false);
}

bool TokenText::viewportEvent(QEvent* event) {
    if (event->type() == QEvent::ToolTip) {
        const auto* help = static_cast<QHelpEvent*>(event);
        const Index token = tokenAt(help->pos());
        if (token >= 0) {
            QString text = tr("token %1 “%2”")
                               .arg(thousands(token), visibleToken(m_document->tokenText(token)));
            if (std::size_t(token) < m_p.size())
                text += tr("\nprobability %1").arg(double(m_p[std::size_t(token)]), 0, 'g', 6);
            QToolTip::showText(help->globalPos(), text, viewport());
        } else {
            QToolTip::hideText();
        }
        return true;
    }
    return QAbstractScrollArea::viewportEvent(event);
}

}  // namespace sparsight::ui
