#include "ui/shell/key_sheet.h"

#include <QGridLayout>
#include <QLabel>
#include <QScrollArea>
#include <QVBoxLayout>

#include "ui/shell/command.h"

namespace sparsight::ui {
namespace {

/// Keys and gestures of the map that are no commands.
const std::pair<const char*, const char*> kGestures[] = {
    {"wheel", "zoom at the cursor"},
    {"drag", "pan"},
    {"Shift+drag", "zoom to an area"},
    {"double or middle click", "zoom to the item"},
    {"arrows", "move the map's cursor"},
    {"Space, held", "hide all mask layers"},
    {"Return, in the text", "unfold the next stretch"},
};

}  // namespace

KeySheet::KeySheet(const Commands& commands, QWidget* parent) : QDialog(parent) {
    setObjectName(QStringLiteral("keySheet"));
    setWindowTitle(tr("Keys"));
    resize(760, 560);
    auto* outer = new QVBoxLayout(this);
    auto* area = new QScrollArea(this);
    area->setWidgetResizable(true);
    area->setFrameShape(QFrame::NoFrame);
    outer->addWidget(area);
    auto* page = new QWidget(area);
    area->setWidget(page);
    auto* grid = new QGridLayout(page);
    grid->setHorizontalSpacing(20);
    grid->setVerticalSpacing(5);
    std::vector<std::pair<QString, QString>> rows;
    for (const Command& c : commands.all()) {
        if (c.key.isEmpty()) continue;
        QString key = c.key.toString(QKeySequence::NativeText), title = c.title;
        // Nine commands of nine digits are one line.
        if (c.id.back().isDigit()) {
            if (c.id.back() != QLatin1Char('1')) continue;
            key += QStringLiteral(" … 9");
            title.remove(QStringLiteral(" 1"));
        }
        rows.emplace_back(key, title);
    }
    for (const auto& [key, what] : kGestures) rows.emplace_back(tr(key), tr(what));
    const int half = int(rows.size() + 1) / 2;
    for (int i = 0; i < int(rows.size()); ++i) {
        auto* key = new QLabel(rows[std::size_t(i)].first, page);
        key->setProperty("role", "strong");
        key->setAlignment(Qt::AlignRight);
        auto* what = new QLabel(rows[std::size_t(i)].second, page);
        what->setProperty("role", "muted");
        grid->addWidget(key, i % half, i / half * 2);
        grid->addWidget(what, i % half, i / half * 2 + 1);
    }
    grid->setColumnStretch(1, 1);
    grid->setColumnStretch(3, 1);
    grid->setRowStretch(half, 1);
}

}  // namespace sparsight::ui
