#include "ui/shell/start_page.h"

#include <QAction>
#include <QEvent>
#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QScrollArea>
#include <QVBoxLayout>

#include "ui/shell/command.h"
#include "ui/shell/recent.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr int kWidth = 880;

QLabel* label(const QString& text, const char* role, QWidget* parent) {
    auto* l = new QLabel(text, parent);
    l->setProperty("role", role);
    l->setWordWrap(true);
    return l;
}

}  // namespace

StartPage::StartPage(Commands* commands, QSettings* settings, QWidget* parent)
    : QWidget(parent), m_commands(commands), m_settings(settings) {
    setObjectName(QStringLiteral("startPage"));
    setAttribute(Qt::WA_StyledBackground);
    auto* outer = new QHBoxLayout(this);
    auto* scroll = new QScrollArea(this);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setFocusPolicy(Qt::NoFocus);
    outer->addWidget(scroll);
    auto* inside = new QWidget(scroll);
    scroll->setWidget(inside);
    auto* centred = new QHBoxLayout(inside);
    auto* page = new QWidget(inside);
    page->setMaximumWidth(kWidth);
    centred->addStretch(1);
    centred->addWidget(page, 100);
    centred->addStretch(1);
    auto* column = new QVBoxLayout(page);
    column->setContentsMargins(24, 40, 24, 24);
    column->setSpacing(12);

    column->addWidget(
        label(tr("See where a transformer attends, and prove what may be skipped"), "hero", page));
    column->addWidget(label(tr("Capture a model's attention over a prompt, look at every head, lay "
                               "masks over it, and measure what they "
                               "lose and what they save on this machine."),
                            "muted", page));
    column->addSpacing(12);

    auto* sample = new QFrame(page);
    sample->setProperty("role", "card");
    auto* sampleRow = new QHBoxLayout(sample);
    sampleRow->setContentsMargins(16, 14, 16, 14);
    auto* sampleText = new QVBoxLayout;
    sampleText->setSpacing(4);
    sampleText->addWidget(label(tr("One head of 64 remembers the pass key"), "strong", sample));
    sampleText->addWidget(
        label(tr("The bundled model bookworm (8 layers, 64 heads) reads a prompt of 1,500 tokens "
                 "that hides a pass key. "
                 "Sparsight captures it now and opens on the head that finds it."),
              "muted", sample));
    sampleRow->addLayout(sampleText, 1);
    auto* see = new QPushButton(tr("See it now"), sample);
    see->setObjectName(QStringLiteral("startSample"));
    see->setProperty("role", "primary");
    see->setToolTip(m_commands->find(QStringLiteral("file.sample"))->help);
    connect(see, &QPushButton::clicked, this,
            [this] { m_commands->run(QStringLiteral("file.sample")); });
    auto* tour = new QPushButton(tr("Take the tour"), sample);
    tour->setObjectName(QStringLiteral("startTour"));
    connect(tour, &QPushButton::clicked, this,
            [this] { m_commands->run(QStringLiteral("help.tour")); });
    sampleRow->addSpacing(12);
    sampleRow->addWidget(tour);
    sampleRow->addWidget(see);
    column->addWidget(sample);

    auto* open = new QHBoxLayout;
    open->setSpacing(8);
    const auto addOpen = [&](const char* id, const char* name) {
        const Command* c = m_commands->find(QLatin1String(id));
        auto* button = new QPushButton(c->title, page);
        button->setObjectName(QLatin1String(name));
        button->setToolTip(m_commands->action(c->id)->toolTip());
        button->setMinimumHeight(30);
        connect(button, &QPushButton::clicked, this, [this, id = c->id] { m_commands->run(id); });
        open->addWidget(button, 1);
    };
    addOpen("capture.new", "startModel");
    addOpen("file.openSession", "startSession");
    addOpen("file.openPlan", "startPlan");
    column->addLayout(open);
    column->addWidget(label(tr("Or drop a model folder, a .sparsight session, a text or a plan "
                               "anywhere in this window."),
                            "muted", page));

    m_recentBox = new QWidget(page);
    auto* recentColumn = new QVBoxLayout(m_recentBox);
    recentColumn->setContentsMargins(0, 16, 0, 0);
    recentColumn->setSpacing(4);
    recentColumn->addWidget(label(tr("RECENT SESSIONS"), "title", m_recentBox));
    m_recent = new QVBoxLayout;
    m_recent->setSpacing(2);
    recentColumn->addLayout(m_recent);
    column->addWidget(m_recentBox);
    column->addStretch();
    refresh();
}

void StartPage::refresh() {
    while (QLayoutItem* item = m_recent->takeAt(0)) {
        if (item->widget()) item->widget()->deleteLater();
        delete item;
    }
    const auto list = recentSessions(*m_settings, 9);
    m_recentBox->setVisible(!list.empty());
    for (std::size_t i = 0; i < list.size(); ++i) {
        const RecentSession& r = list[i];
        auto* button = new QPushButton(m_recentBox);
        button->setObjectName(QStringLiteral("recent%1").arg(i + 1));
        button->setAccessibleName(tr("Open %1").arg(r.name));
        button->setProperty("role", "flat");
        button->setToolTip(QStringLiteral("%1  (Ctrl+%2)").arg(r.path).arg(i + 1));
        button->setProperty("tall", true);
        auto* row = new QHBoxLayout(button);
        row->setContentsMargins(6, 4, 10, 4);
        auto* picture = new QLabel(button);
        picture->setFixedSize(44, 44);
        if (!r.picture.isNull())
            picture->setPixmap(QPixmap::fromImage(
                r.picture.scaled(44, 44, Qt::IgnoreAspectRatio, Qt::SmoothTransformation)));
        row->addWidget(picture);
        auto* text = new QVBoxLayout;
        text->setSpacing(0);
        text->addWidget(new QLabel(r.name, button));
        auto* what = label(r.what, "muted", button);
        what->setWordWrap(false);
        text->addWidget(what);
        row->addLayout(text, 1);
        for (const QString& part : {r.size, r.when}) {
            auto* l = label(part, "muted", button);
            l->setWordWrap(false);
            l->setMinimumWidth(80);
            l->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
            row->addWidget(l);
        }
        for (QLabel* l : button->findChildren<QLabel*>())
            l->setAttribute(Qt::WA_TransparentForMouseEvents);
        connect(button, &QPushButton::clicked, this, [this, path = r.path] {
            m_commands->run(QStringLiteral("file.openSession"), {{QStringLiteral("path"), path}});
        });
        m_recent->addWidget(button);
    }
}

}  // namespace sparsight::ui
