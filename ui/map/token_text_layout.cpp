// Where the tokens stand: folds of what is not read, lines, and what is in sight.
#include <QElapsedTimer>
#include <QScrollBar>
#include <algorithm>
#include <numeric>
#include <utility>

#include "ui/map/token_text.h"
#include "ui/shell/theme.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr int kLeading = 7;
constexpr Index kSlice = 4096;      ///< tokens that are measured at once, in a few milliseconds
constexpr Index kLeastFold = 24;    ///< shorter stretches are read faster than a chip
constexpr Index kContext = 6;       ///< tokens left standing around one that is read, at least
constexpr Index kLongWord = 8;      ///< tokens; a longer one is cut
constexpr double kToldMass = 0.01;  ///< a chip that hides so much says it
constexpr double kChipPad = 8;

}  // namespace

int TokenText::lineHeight() const {
    return QFontMetrics(bodyFont()).height() + kLeading;
}

bool TokenText::startsWord(const QString& text) {
    return text.startsWith(QLatin1Char(' ')) || text.startsWith(kLineEnd);
}

QString TokenText::chipText(const Fold& fold) {
    QString text = tr("%1 tokens").arg(thousands(fold.count));
    if (fold.mass >= kToldMass)
        text += tr(" · %1 %").arg(100 * fold.mass, 0, 'f', fold.mass < 0.0995 ? 1 : 0);
    return QStringLiteral("… %1 …").arg(text);
}

bool TokenText::measureTokens() {
    if (m_measureSoon.isActive()) return false;
    const Index n = shown();
    if (Index(m_measured.size()) > n) m_measured.clear();
    const QFontMetricsF fm(bodyFont());
    const auto& capture = m_document->capture();
    const LayerShape shape = m_document->shape();
    const bool decoder = (m_keyMode && crosses() ? shape.queries : shape.keys) == Sequence::Decoder;
    const auto& offsets = decoder ? capture.decoderOffsets : capture.offsets;
    const Index begin = Index(m_measured.size()), end = std::min(n, begin + kSlice);
    m_measured.resize(std::size_t(end));
    for (Index i = begin; i < end; ++i) {
        const auto at = std::size_t(i);
        Token& t = m_measured[at];
        // The bytes of one character may be several tokens: the first shows it.
        const bool again = i > 0 && at < offsets.size() &&
                           offsets[at].byteBegin == offsets[at - 1].byteBegin &&
                           offsets[at].byteEnd == offsets[at - 1].byteEnd;
        t.text = again ? QString() : shownText(i);
        t.text.replace(QLatin1Char('\t'), QStringLiteral("    "));
        t.text.replace(QLatin1Char('\n'), kLineEnd);
        auto known = m_widths.constFind(t.text);
        if (known == m_widths.constEnd())
            known = m_widths.insert(t.text, float(std::max(3.0, fm.horizontalAdvance(t.text))));
        t.width = *known;
    }
    if (end < n) {
        m_measureSoon.start();
        return false;
    }
    m_tokens = std::exchange(m_measured, {});
    m_widths.clear();
    m_opened.assign(std::size_t(n), 0);
    return true;
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
    if (Index(m_tokens.size()) != n) {
        m_tokens.clear();
        m_folds.clear();
        if (!measureTokens()) return;
    }
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
    if (Index(m_tokens.size()) > kSlice) {
        m_measureSoon.start();  // panels find their sizes by several steps: one layout will do
        return;
    }
    layOut();
    reveal(own());
}

const TokenText::Fold* TokenText::foldOf(Index token) const {
    const auto after = std::upper_bound(m_folds.begin(), m_folds.end(), token,
                                        [](Index t, const Fold& fold) { return t < fold.first; });
    return after != m_folds.begin() && (after - 1)->contains(token) ? &*(after - 1) : nullptr;
}

}  // namespace sparsight::ui
