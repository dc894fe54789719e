#include <QCoreApplication>
#include <QRegularExpression>
#include <algorithm>

#include "core/probe/needle.h"
#include "ui/document.h"
#include "ui/shell/command.h"
#include "ui/shell/command_palette.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr int kTextMatches = 8;

QString translate(const char* text) {
    return QCoreApplication::translate("destinations", text);
}

/// Brings a token into the middle of the map when it is outside of it.
void reveal(Document& document, Index query, Index key) {
    const MapRect& v = document.view();
    const auto outside = [](double from, double to, Index at) {
        return double(at) < from || double(at) >= to ? at : -1;
    };
    document.setView(
        centredOn(v, document.mapSize(), outside(v.q0, v.q1, query), outside(v.k0, v.k1, key)));
}

Destination head(Document& document, Index layer, Index h) {
    const auto& c = document.capture();
    Destination d;
    d.title = translate("Head %1").arg(document.headText(layer, h));
    if (layer >= c.config.layers || h >= c.config.heads)
        d.blocked = translate("The model has layers 0 to %1 and heads 0 to %2.")
                        .arg(c.config.layers - 1)
                        .arg(c.config.heads - 1);
    else if (std::find(c.layersDone.begin(), c.layersDone.end(), layer) == c.layersDone.end())
        d.blocked = translate("Layer %1 is not in this capture.").arg(document.layerText(layer));
    d.note = d.blocked;
    if (const HeadFacts* f = document.factsOf(layer, h)) d.note = QString::fromStdString(f->label);
    d.go = [&document, layer, h] { document.selectHead(layer, h); };
    return d;
}

Destination cell(Document& document, std::optional<Index> query, std::optional<Index> key) {
    Destination d;
    if (query && key)
        d.title = translate("Query %1, key %2").arg(thousands(*query), thousands(*key));
    else if (query)
        d.title = translate("Token %1 “%2” as query")
                      .arg(thousands(*query), document.rowText(*query).trimmed());
    else
        d.title = translate("Token %1 “%2” as key")
                      .arg(thousands(*key), document.keyText(*key).trimmed());
    if (query && *query >= document.rows())
        d.blocked = d.note = translate("The map has %1 queries.").arg(thousands(document.rows()));
    else if (key && *key >= document.keys())
        d.blocked = d.note = translate("The map has %1 keys.").arg(thousands(document.keys()));
    d.go = [&document, query, key] {
        if (query) document.selectQuery(*query);
        if (key) document.selectKey(*key);
        reveal(document, query.value_or(-1), key.value_or(-1));
    };
    return d;
}

/// Tokens in which a match of `text` begins.
void addText(Document& document, const QString& text, std::vector<Destination>& out) {
    const QByteArray needle = text.toUtf8();
    const std::string& prompt = document.capture().promptText;
    const auto& offsets = document.capture().offsets;
    std::size_t from = 0;
    for (int i = 0; i < kTextMatches; ++i) {
        const std::size_t at = prompt.find(needle.constData(), from, std::size_t(needle.size()));
        if (at == std::string::npos) break;
        from = at + 1;
        const auto token = std::find_if(offsets.begin(), offsets.end(), [at](const TokenOffset& o) {
            return o.byteBegin <= Index(at) && Index(at) < o.byteEnd;
        });
        if (token == offsets.end()) continue;
        Destination d = cell(document, std::nullopt, Index(token - offsets.begin()));
        const std::size_t begin = at > 24 ? at - 24 : 0;
        d.note =
            QStringLiteral("… ") + QString::fromStdString(prompt.substr(begin, 60)).simplified();
        out.push_back(std::move(d));
    }
    if (out.empty()) {
        Destination none;
        none.title = translate("No match of “%1” in the prompt").arg(text);
        none.blocked = none.title;
        out.push_back(none);
    }
}

}  // namespace

std::vector<Destination> destinations(Document& document, const QString& typed) {
    std::vector<Destination> out;
    if (document.tokens() == 0) return out;  // nothing is open
    static const QRegularExpression headForm(
        QStringLiteral("^[lL]\\s*(\\d+)[\\s.,]*[hH]?\\s*(\\d+)$"));
    static const QRegularExpression tokenForm(
        QStringLiteral("^(?:token|t|#)?\\s*:?\\s*(\\d[\\d,]*)$"),
        QRegularExpression::CaseInsensitiveOption);
    static const QRegularExpression queryForm(
        QStringLiteral("(?:^|\\s)(?:q|query)\\s*:?\\s*(\\d+)"),
        QRegularExpression::CaseInsensitiveOption);
    static const QRegularExpression keyForm(QStringLiteral("(?:^|\\s)(?:k|key)\\s*:?\\s*(\\d+)"),
                                            QRegularExpression::CaseInsensitiveOption);

    if (const auto m = headForm.match(typed); m.hasMatch()) {
        out.push_back(head(document, m.captured(1).toLongLong(), m.captured(2).toLongLong()));
        return out;
    }
    if (const auto m = tokenForm.match(typed); m.hasMatch()) {
        const Index token = QString(m.captured(1)).remove(QLatin1Char(',')).toLongLong();
        out.push_back(cell(document, token, std::nullopt));
        out.push_back(cell(document, std::nullopt, token));
        return out;
    }
    const auto q = queryForm.match(typed), k = keyForm.match(typed);
    if (q.hasMatch() || k.hasMatch()) {
        std::optional<Index> query, key;
        if (q.hasMatch()) query = q.captured(1).toLongLong();
        if (k.hasMatch()) key = k.captured(1).toLongLong();
        out.push_back(cell(document, query, key));
        return out;
    }
    if (typed.size() > 1 && typed.startsWith(QLatin1Char('"'))) {
        QString text = typed.mid(1);
        if (text.endsWith(QLatin1Char('"'))) text.chop(1);
        if (!text.isEmpty()) addText(document, text, out);
        return out;
    }
    const auto named = [&typed](const QString& title) {
        return !typed.isEmpty() && fuzzyScore(typed, title) >= 0;
    };
    if (const QString title = translate("Worst recall: the head that the active mask hurts most");
        named(title)) {
        const auto& rows = document.tableMetrics();
        const auto worst = std::min_element(
            rows.begin(), rows.end(),
            [](const MaskMetrics& a, const MaskMetrics& b) { return a.recall < b.recall; });
        Destination d;
        d.title = title;
        if (worst == rows.end()) {
            d.blocked = d.note = translate("The heads table is not computed yet.");
        } else {
            d.note = QStringLiteral("%1, %2")
                         .arg(document.headText(worst->layer, worst->head))
                         .arg(worst->recall, 0, 'f', 3);
            d.go = [&document, l = worst->layer, h = worst->head] { document.selectHead(l, h); };
        }
        out.push_back(std::move(d));
    }
    if (const QString title = translate("Retrieval: the head with the highest retrieval score");
        named(title)) {
        const auto& facts = document.headFacts();
        const auto best = std::max_element(
            facts.begin(), facts.end(), [](const HeadFacts& a, const HeadFacts& b) {
                return a.retrieval.value_or(-1) < b.retrieval.value_or(-1);
            });
        Destination d;
        d.title = title;
        if (best == facts.end() || !best->retrieval) {
            d.blocked = d.note = translate("Only a needle prompt has retrieval scores.");
        } else {
            d.note = QStringLiteral("%1, %2")
                         .arg(document.headText(best->layer, best->head))
                         .arg(*best->retrieval, 0, 'f', 2);
            d.go = [&document, l = best->layer, h = best->head] { document.selectHead(l, h); };
        }
        out.push_back(std::move(d));
    }
    if (const QString title = translate("Needle: its tokens and the answer's first row");
        named(title)) {
        const auto& truth = document.capture().truth;
        Destination d;
        d.title = title;
        if (!truth)
            d.blocked = d.note = translate("This prompt has no needle.");
        else
            d.go = [&document, row = copyingRow(document.capture().tokenIds, *truth),
                    k0 = truth->needle.begin] {
                document.selectQuery(row);
                document.selectKey(k0);
                reveal(document, row, k0);
            };
        out.push_back(std::move(d));
    }
    return out;
}

}  // namespace sparsight::ui
