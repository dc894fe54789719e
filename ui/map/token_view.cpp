#include "ui/map/token_view.h"

#include <QElapsedTimer>
#include <QHBoxLayout>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QPushButton>
#include <QScrollBar>
#include <QToolTip>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ui/engine.h"
#include "ui/map/map_paint.h"
#include "ui/map/patch_grid.h"
#include "ui/shell/banner.h"
#include "ui/shell/elided_label.h"
#include "ui/shell/theme.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr int kPad = 12, kLeading = 7;
constexpr double kFaintest = 1e-3;  ///< probability from which a background is seen
constexpr Index kLeastFold = 24;    ///< shorter stretches are read faster than a chip
constexpr Index kContext = 6;       ///< tokens left standing around one that is read, at least
constexpr Index kLongWord = 8;      ///< tokens; a longer one is cut
constexpr double kToldMass = 0.01;  ///< a chip that hides so much says it
constexpr double kChipPad = 8;
const QString kLineEnd = QStringLiteral("⏎");

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

QString chipText(const TokenText::Fold& fold) {
    QString text = QObject::tr("%1 tokens").arg(thousands(fold.count));
    if (fold.mass >= kToldMass)
        text += QObject::tr(" · %1 %").arg(100 * fold.mass, 0, 'f', fold.mass < 0.0995 ? 1 : 0);
    return QStringLiteral("… %1 …").arg(text);
}

bool startsWord(const QString& text) {
    return text.startsWith(QLatin1Char(' ')) || text.startsWith(kLineEnd);
}

const QColor kHeat(0xe6, 0x9f, 0x00);
const QColor kOnHeat(0x14, 0x16, 0x1a);

}  // namespace

TokenView::TokenView(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("tokenView"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(0);
    m_tools = new QWidget(this);
    auto* row = new QHBoxLayout(m_tools);
    row->setContentsMargins(0, 0, 0, 0);
    row->setSpacing(4);
    m_title = new ElidedLabel(m_tools);
    m_title->setObjectName(QStringLiteral("tokenTitle"));
    m_title->setProperty("role", "muted");
    row->addWidget(m_title, 1);
    row->addSpacing(4);
    m_query = addButton("tokenQuery", tr("Query"),
                        tr("Background: what the selected query reads; a click selects a query "
                           "(default)"));
    m_key = addButton("tokenKey", tr("Key"),
                      tr("Background: which tokens read the selected key; a click selects a key"));
    m_fold = addButton("tokenFold", tr("Fold"),
                       tr("Folds long stretches that are not read to a chip; a click on it unfolds "
                          "them (default: on)"));
    column->addWidget(m_tools);
    m_banner = new Banner(this, QStringLiteral("tokenBanner"));
    column->addWidget(m_banner);
    m_text = new TokenText(m_document, this);
    m_text->setObjectName(QStringLiteral("tokenText"));
    m_text->setAccessibleName(tr("Prompt text"));
    m_text->setMinimumHeight(24);  // a sentence above it is not to be squeezed
    column->addWidget(m_text, 1);
    m_image = new PatchGrid(m_document, this);
    m_image->setObjectName(QStringLiteral("imageGrid"));
    m_image->setAccessibleName(tr("Patches of the image"));
    m_image->hide();
    column->addWidget(m_image, 1);

    connect(m_query, &QPushButton::clicked, this, [this] { setKeyMode(false); });
    connect(m_key, &QPushButton::clicked, this, [this] { setKeyMode(true); });
    connect(m_fold, &QPushButton::clicked, this, &TokenView::setFolding);
    connect(m_text, &TokenText::clicked, this, &TokenView::click);
    connect(m_image, &PatchGrid::clicked, this, &TokenView::click);
    connect(document, &Document::captureChanged, this, [this] {
        m_text->reset();
        m_text->setHidden(m_document->capture().image.has_value());
        m_image->setVisible(m_document->capture().image.has_value());
        refresh();
    });
    connect(document, &Document::headChanged, this, [this] {
        if (!m_document->capture().config.stacks.empty()) m_text->reset();
        refresh();
    });
    const auto selected = [this](bool key) {
        if (m_keyMode == key) refresh();
        m_text->selectionMoved();
    };
    connect(document, &Document::queryChanged, this, [selected] { selected(false); });
    connect(document, &Document::keyChanged, this, [selected] { selected(true); });
    setFolding(true);
    setKeyMode(false);
}

QPushButton* TokenView::addButton(const char* name, const QString& text, const QString& help) {
    auto* b = new QPushButton(text, m_tools);
    b->setObjectName(QLatin1String(name));
    b->setAccessibleName(help);
    b->setToolTip(help);
    b->setCheckable(true);
    b->setStyleSheet(QStringLiteral("font-size: 12px; padding: 1px 10px;"));
    m_tools->layout()->addWidget(b);
    return b;
}

bool TokenView::event(QEvent* event) {
    if (event->type() == QEvent::PaletteChange) m_text->viewport()->update();
    return QWidget::event(event);
}

Index TokenView::own() const {
    return m_keyMode ? m_document->key() : m_document->query();
}

void TokenView::setKeyMode(bool on) {
    m_keyMode = on;
    m_query->setChecked(!on);
    m_key->setChecked(on);
    m_text->setKeyMode(on);
    m_image->setKeyMode(on);
    refresh();
}

void TokenView::click(Index token, bool otherWay) {
    // In cross-attention the text shown is the other side's.
    const LayerShape shape = m_document->shape();
    const bool key = (m_keyMode != otherWay) != (shape.queries != shape.keys);
    if (key)
        m_document->selectKey(token);
    else
        m_document->selectQuery(token);
}

bool TokenView::folding() const {
    return m_text->folding();
}

void TokenView::setFolding(bool on) {
    m_fold->setChecked(on);
    m_text->setFolding(on);
}

bool TokenView::unfold(Index token) {
    return m_text->unfold(token);
}

void TokenView::refreshTitle() {
    const Index at = own();
    QString text;
    if (!m_document->isOpen())
        text = tr("The prompt's text stands here when a session is open.");
    else if (at < 0)
        text = m_keyMode ? tr("Click a token to see which tokens read it.")
                         : tr("Click a token to see what it reads.");
    else
        text = (m_keyMode ? tr("background: who reads key %1 “%2”")
                          : tr("background: what query %1 “%2” reads"))
                   .arg(thousands(at), visibleToken(m_keyMode ? m_document->keyText(at)
                                                              : m_document->rowText(at)));
    m_title->tell(text);
}

void TokenView::refresh() {
    refreshTitle();
    m_banner->hide();
    m_head = selectedHead(*m_document);
    const Index at = own();
    if (!m_head.valid() || at < 0) {
        m_engine->stop(QStringLiteral("tokens"));
        m_text->setProbabilities({});
        m_image->setProbabilities({});
        return;
    }
    auto work = [head = m_head, at, column = m_keyMode,
                 backend = m_engine->backend(Engine::Quick)](const Job& job) {
        return column ? readColumn(head, at, *backend, job) : readRow(head, at);
    };
    const auto current = [this, head = m_head, at, column = m_keyMode] {
        return head.same(m_head) && column == m_keyMode && at == own();
    };
    m_engine->run(Engine::Quick, QStringLiteral("tokens"), std::move(work))
        .then(this,
              [this, current](const std::vector<float>& p) {
                  if (!current()) return;
                  m_text->setProbabilities(p);
                  m_image->setProbabilities(p);
              })
        .onFailed(this, [this, current](const std::exception& e) {
            if (!current()) return;
            m_text->setProbabilities({});
            m_image->setProbabilities({});
            m_banner->showMessage(
                tr("What is read here cannot be shown: %1. If it stays so, capture the prompt "
                   "again.")
                    .arg(reasonOf(e)),
                tr("Try again"), [this] { refresh(); });
        });
}

TokenText::TokenText(Document* document, QWidget* parent)
    : QAbstractScrollArea(parent), m_document(document) {
    setFrameShape(QFrame::NoFrame);
    setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    setFocusPolicy(Qt::StrongFocus);
    viewport()->setCursor(Qt::IBeamCursor);
    viewport()->setMouseTracking(true);
    viewport()->setAutoFillBackground(false);
    verticalScrollBar()->setSingleStep(lineHeight());
}

int TokenText::lineHeight() const {
    return QFontMetrics(bodyFont()).height() + kLeading;
}

bool TokenText::crosses() const {
    const LayerShape shape = m_document->shape();
    return shape.queries != shape.keys;
}

Index TokenText::shown() const {
    return m_keyMode && crosses() ? m_document->rows() : m_document->keys();
}

QString TokenText::shownText(Index token) const {
    return m_keyMode && crosses() ? m_document->rowText(token) : m_document->keyText(token);
}

Index TokenText::own() const {
    if (crosses()) return -1;
    return m_keyMode ? m_document->key() : m_document->query();
}

Index TokenText::other() const {
    return m_keyMode ? m_document->query() : m_document->key();
}

void TokenText::setProbabilities(std::vector<float> p) {
    m_p = std::move(p);
    relayOut();
}

void TokenText::setKeyMode(bool on) {
    m_keyMode = on;
    if (crosses())
        reset();  // the other sequence's tokens
    else
        viewport()->update();
}

void TokenText::setFolding(bool on) {
    m_folding = on;
    m_opened.assign(m_opened.size(), 0);
    relayOut();
}

bool TokenText::unfold(Index token) {
    const Fold* fold = foldOf(token);
    if (!fold) return false;
    std::fill_n(m_opened.begin() + fold->first, fold->count, char(1));
    relayOut();
    return true;
}

void TokenText::reset() {
    m_tokens.clear();
    m_opened.clear();
    m_folds.clear();
    m_p.clear();
    m_laidOutWidth = -1;
    verticalScrollBar()->setValue(0);
    layOut();
    viewport()->update();
}

// --- layout ------------------------------------------------------------------------------------

void TokenText::measureTokens() {
    const Index n = shown();
    m_tokens.assign(std::size_t(n), {});
    m_opened.assign(std::size_t(n), 0);
    const QFontMetricsF fm(bodyFont());
    QHash<QString, float> widths;  // a prompt repeats its tokens
    const auto& capture = m_document->capture();
    const LayerShape shape = m_document->shape();
    const bool decoder = (m_keyMode && crosses() ? shape.queries : shape.keys) == Sequence::Decoder;
    const auto& offsets = decoder ? capture.decoderOffsets : capture.offsets;
    for (Index i = 0; i < n; ++i) {
        Token& t = m_tokens[std::size_t(i)];
        const auto at = std::size_t(i);
        // The bytes of one character may be several tokens: the first shows it.
        const bool again = i > 0 && at < offsets.size() &&
                           offsets[at].byteBegin == offsets[at - 1].byteBegin &&
                           offsets[at].byteEnd == offsets[at - 1].byteEnd;
        t.text = again ? QString() : shownText(i);
        t.text.replace(QLatin1Char('\t'), QStringLiteral("    "));
        t.text.replace(QLatin1Char('\n'), kLineEnd);
        auto known = widths.constFind(t.text);
        if (known == widths.constEnd())
            known = widths.insert(t.text, float(std::max(3.0, fm.horizontalAdvance(t.text))));
        t.width = *known;
    }
}

void TokenText::findFolds(Index context) {
    m_folds.clear();
    const Index n = Index(m_tokens.size());
    if (!m_folding || Index(m_p.size()) != n) return;
    // What is read stands, with a few words around it, and so do the selection and the needle.
    std::vector<char> stands = m_opened;
    const auto keep = [&](Index begin, Index end) {
        const Index from = std::max<Index>(0, begin - context), to = std::min(n, end + context);
        if (from < to) std::fill_n(stands.begin() + from, to - from, char(1));
    };
    for (Index i = 0; i < n; ++i)
        if (double(m_p[std::size_t(i)]) >= kFaintest) keep(i, i + 1);
    for (const Index token : {own(), other()})
        if (token >= 0) keep(token, token + 1);
    if (const auto& truth = m_document->capture().truth) {
        keep(truth->needle.begin, truth->needle.end);
        keep(truth->answer.begin, truth->answer.end);
    }
    const auto text = [this](Index i) -> const QString& { return m_tokens[std::size_t(i)].text; };
    for (Index i = 0; i < n;) {
        Index end = i;
        while (end < n && !stands[std::size_t(end)]) ++end;
        Index begin = i;
        i = std::max(end, i + 1);
        // Whole words, where the text has words of a reasonable length.
        const Index first = begin, past = end;
        while (begin < end && begin - first < kLongWord && begin > 0 && !startsWord(text(begin)))
            ++begin;
        Index last = end;
        while (last > begin && past - last < kLongWord && last < n && !startsWord(text(last)))
            --last;
        if (last - begin < kLeastFold) continue;
        const auto from = m_p.begin() + begin;
        m_folds.push_back({begin, last - begin, std::accumulate(from, from + (last - begin), 0.0)});
    }
}

void TokenText::layOut() {
    const int width = viewport()->width();
    const Index n = shown();
    if (width < 40 || (m_laidOutWidth == width && Index(m_tokens.size()) == n)) return;
    QElapsedTimer timer;
    timer.start();
    m_laidOutWidth = width;
    if (Index(m_tokens.size()) != n) measureTokens();
    m_folds.clear();
    flow();
    if (textHeight() > viewport()->height()) {  // a text that fits needs no folds
        findFolds(kContext);
        if (!m_folds.empty()) flow();
        // As many words around what is read as there is room for.
        for (Index context = kContext; !m_folds.empty() && context < n;) {
            context += context / 2;
            const std::vector<Fold> narrower = m_folds;
            findFolds(context);
            flow();
            if (textHeight() <= viewport()->height()) continue;
            m_folds = narrower;
            flow();
            break;
        }
    }
    verticalScrollBar()->setPageStep(viewport()->height());
    verticalScrollBar()->setRange(0, std::max(0, textHeight() - viewport()->height()));
    Index hidden = 0;
    for (const Fold& f : m_folds) hidden += f.count;
    uiLog(QStringLiteral("layout"), {{QStringLiteral("what"), QStringLiteral("text")},
                                     {QStringLiteral("tokens"), qint64(n)},
                                     {QStringLiteral("folds"), qint64(m_folds.size())},
                                     {QStringLiteral("hidden"), qint64(hidden)},
                                     {QStringLiteral("took"), double(timer.nsecsElapsed()) / 1e6}});
}

void TokenText::flow() {
    const QFontMetricsF fm(bodyFont());
    const Index n = Index(m_tokens.size());
    m_lineBegin.assign(1, 0);
    float x = 0;
    const float room = float(viewport()->width() - 2 * kPad),
                blank = float(fm.horizontalAdvance(QLatin1Char(' ')));
    int line = 0;
    const auto breakAt = [&](Index token) {
        ++line;
        x = 0;
        m_lineBegin.push_back(token);
    };
    auto fold = m_folds.begin();
    for (Index i = 0; i < n; ++i) {
        if (fold != m_folds.end() && fold->first == i) {
            fold->width = float(fm.horizontalAdvance(chipText(*fold)) + 2 * kChipPad);
            if (x > 0) x += blank;
            if (x > 0 && x + fold->width > room) breakAt(i);
            fold->x = x;
            fold->line = line;
            x += fold->width;
            i += fold->count - 1;
            ++fold;
            continue;
        }
        Token& t = m_tokens[std::size_t(i)];
        if (x > 0 && t.text.startsWith(QLatin1Char(' '))) {
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
        if (t.text.contains(kLineEnd) && i + 1 < n) breakAt(i + 1);
    }
}

int TokenText::textHeight() const {
    return m_tokens.empty() ? 0 : int(m_lineBegin.size()) * lineHeight() + kPad;
}

void TokenText::relayOut() {
    const auto top = [this](Index token) {
        return m_tokens[std::size_t(token)].line * lineHeight() - verticalScrollBar()->value();
    };
    const Index at = own();
    const bool known = at >= 0 && std::size_t(at) < m_tokens.size() && !foldOf(at);
    const int before = known ? top(at) : -1;
    m_laidOutWidth = -1;
    layOut();
    viewport()->update();
    if (at < 0 || std::size_t(at) >= m_tokens.size()) return;
    // The token under the eye stays there; one that was out of sight comes into it.
    if (before >= 0 && before + lineHeight() <= viewport()->height())
        verticalScrollBar()->setValue(verticalScrollBar()->value() + top(at) - before);
    reveal(at);
}

void TokenText::selectionMoved() {
    layOut();
    if (foldOf(own()) || foldOf(other()))
        relayOut();  // the selection is never folded
    else
        reveal(own());
}

void TokenText::reveal(Index token) {
    if (token < 0 || token >= Index(m_tokens.size())) return;
    const int top = m_tokens[std::size_t(token)].line * lineHeight();
    QScrollBar* bar = verticalScrollBar();
    if (top < bar->value() || top + lineHeight() > bar->value() + viewport()->height())
        bar->setValue(top + lineHeight() / 2 - viewport()->height() / 2);
    viewport()->update();
}

void TokenText::resizeEvent(QResizeEvent* event) {
    QAbstractScrollArea::resizeEvent(event);
    m_laidOutWidth = -1;  // the height decides too whether folds are needed
    layOut();
    reveal(own());
}

QRect TokenText::chipRect(const Fold& fold) const {
    return QRectF(double(kPad + fold.x),
                  fold.line * lineHeight() - verticalScrollBar()->value() + 3.0, double(fold.width),
                  lineHeight() - 6.0)
        .toRect();
}

const TokenText::Fold* TokenText::foldOf(Index token) const {
    const auto after = std::upper_bound(m_folds.begin(), m_folds.end(), token,
                                        [](Index t, const Fold& fold) { return t < fold.first; });
    return after != m_folds.begin() && (after - 1)->contains(token) ? &*(after - 1) : nullptr;
}

// --- painting ----------------------------------------------------------------------------------

void TokenText::paintEvent(QPaintEvent*) {
    QElapsedTimer timer;
    timer.start();
    QPainter p(viewport());
    const Theme& t = theme();
    p.fillRect(viewport()->rect(), t.panel);
    if (m_tokens.empty()) return;
    p.setFont(bodyFont());
    p.setRenderHint(QPainter::Antialiasing);
    const int height = lineHeight(), scrolled = verticalScrollBar()->value();
    const int from = std::clamp(scrolled / height, 0, int(m_lineBegin.size()) - 1);
    const auto box = [&](Index i) {
        const Token& k = m_tokens[std::size_t(i)];
        return QRectF(double(kPad + k.x), k.line * height - scrolled + 2.0, double(k.width),
                      height - 4.0);
    };
    for (Index i = m_lineBegin[std::size_t(from)]; i < Index(m_tokens.size()); ++i) {
        if (const Fold* fold = foldOf(i)) {
            if (chipRect(*fold).top() > viewport()->height()) break;
            paintChip(p, *fold);
            i += fold->count - 1;
            continue;
        }
        const QRectF r = box(i);
        if (r.top() > viewport()->height()) break;
        paintToken(p, i, r);
    }
    p.setBrush(Qt::NoBrush);
    for (const auto& [token, pen] : {std::pair(other(), QPen(t.muted, 1.2, Qt::DashLine)),
                                     std::pair(own(), QPen(t.accent, 2))}) {
        if (token < 0 || token >= Index(m_tokens.size()) || foldOf(token)) continue;
        p.setPen(pen);
        p.drawRoundedRect(box(token).adjusted(-1, -0.5, 1, 0.5), 3, 3);
    }
    uiLog(QStringLiteral("paint"), {{QStringLiteral("what"), QStringLiteral("text")},
                                    {QStringLiteral("took"), double(timer.nsecsElapsed()) / 1e6}});
}

void TokenText::paintToken(QPainter& p, Index token, const QRectF& r) const {
    const Theme& t = theme();
    const auto at = std::size_t(token);
    const double s = at < m_p.size() ? strength(double(m_p[at])) : 0;
    const double share = s * s * 0.95;
    if (share > 0.01) {
        p.setPen(Qt::NoPen);
        p.setBrush(mixed(kHeat, t.panel, share));
        p.drawRect(r);
    }
    const QString& shown = m_tokens[at].text;
    const bool seen = own() < 0 || (m_keyMode ? token >= own() : token <= own());
    p.setPen(share > 0.45 ? kOnHeat : shown == kLineEnd || !seen ? t.muted : t.text);
    const QFontMetricsF fm(p.font());
    p.drawText(QPointF(r.left(), r.top() + (r.height() - fm.height()) / 2 + fm.ascent()), shown);
    const auto& truth = m_document->capture().truth;
    if (truth && (truth->needle.contains(token) || truth->answer.contains(token)))
        p.fillRect(QRectF(r.left(), r.bottom() - 1, r.width(), 2),
                   truth->needle.contains(token) ? t.warning : t.accent);
}

void TokenText::paintChip(QPainter& p, const Fold& fold) const {
    const QRectF r = chipRect(fold);
    p.setPen(QPen(theme().line, 1));
    p.setBrush(theme().raised);
    p.drawRoundedRect(r.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4);
    p.setPen(theme().muted);
    p.drawText(r, Qt::AlignCenter, chipText(fold));
}

// --- input -------------------------------------------------------------------------------------

Index TokenText::tokenAt(const QPoint& point) const {
    if (m_tokens.empty()) return -1;
    const int line = (point.y() + verticalScrollBar()->value()) / lineHeight();
    if (line < 0 || std::size_t(line) >= m_lineBegin.size()) return -1;
    const Index end = std::size_t(line) + 1 < m_lineBegin.size()
                          ? m_lineBegin[std::size_t(line) + 1]
                          : Index(m_tokens.size());
    for (Index i = m_lineBegin[std::size_t(line)]; i < end; ++i) {
        if (const Fold* fold = foldOf(i)) {
            i = fold->first + fold->count - 1;
            continue;
        }
        const Token& t = m_tokens[std::size_t(i)];
        const float x = float(point.x() - kPad);
        if (x >= t.x && x < t.x + t.width) return i;
    }
    return -1;
}

const TokenText::Fold* TokenText::foldAt(const QPoint& point) const {
    for (const Fold& fold : m_folds)
        if (chipRect(fold).contains(point)) return &fold;
    return nullptr;
}

void TokenText::mousePressEvent(QMouseEvent* event) {
    if (event->button() != Qt::LeftButton) return;
    if (const Fold* fold = foldAt(event->pos())) {
        unfold(fold->first);
        return;
    }
    const Index token = tokenAt(event->pos());
    if (token >= 0) emit clicked(token, event->modifiers() & (Qt::ShiftModifier | Qt::AltModifier));
}

void TokenText::mouseMoveEvent(QMouseEvent* event) {
    viewport()->setCursor(foldAt(event->pos()) ? Qt::PointingHandCursor : Qt::IBeamCursor);
}

void TokenText::keyPressEvent(QKeyEvent* event) {
    const Index last = shown() - 1, at = crosses() ? other() : own();
    if (last < 0) return;
    const auto go = [&](Index to) { emit clicked(std::clamp<Index>(to, 0, last), false); };
    switch (event->key()) {
        case Qt::Key_Left:
            go(at - 1);
            break;
        case Qt::Key_Right:
            go(at + 1);
            break;
        case Qt::Key_Return:
        case Qt::Key_Enter: {  // the next chip after the selection, or else the last one
            if (m_folds.empty()) break;
            const auto next = std::find_if(m_folds.begin(), m_folds.end(),
                                           [at](const Fold& f) { return f.first > at; });
            unfold(next == m_folds.end() ? m_folds.back().first : next->first);
            break;
        }
        default:
            QAbstractScrollArea::keyPressEvent(event);
    }
}

QString TokenText::helpAt(const QPoint& point) const {
    if (const Fold* fold = foldAt(point))
        return tr("tokens %1 to %2, each below a probability of %3, together %4\nClick to show "
                  "them")
            .arg(thousands(fold->first), thousands(fold->first + fold->count - 1))
            .arg(kFaintest)
            .arg(fold->mass, 0, 'g', 3);
    const Index token = tokenAt(point);
    if (token < 0) return {};
    QString text = tr("token %1 “%2”").arg(thousands(token), visibleToken(shownText(token)));
    if (std::size_t(token) < m_p.size())
        text += tr("\nprobability %1").arg(double(m_p[std::size_t(token)]), 0, 'g', 6);
    return text;
}

bool TokenText::viewportEvent(QEvent* event) {
    if (event->type() == QEvent::ToolTip) {
        const auto* help = static_cast<QHelpEvent*>(event);
        const QString text = helpAt(help->pos());
        if (text.isEmpty())
            QToolTip::hideText();
        else
            QToolTip::showText(help->globalPos(), text, viewport());
        return true;
    }
    return QAbstractScrollArea::viewportEvent(event);
}

}  // namespace sparsight::ui
