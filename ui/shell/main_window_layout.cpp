#include <QDockWidget>
#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QStackedWidget>
#include <QStatusBar>
#include <QTabBar>
#include <QToolBar>
#include <QVBoxLayout>
#include <algorithm>

#include "ui/map/decode_bar.h"
#include "ui/map/head_grid.h"
#include "ui/map/map_view.h"
#include "ui/map/token_view.h"
#include "ui/panels/curve_chart.h"
#include "ui/panels/head_panel.h"
#include "ui/panels/mask_panel.h"
#include "ui/panels/metrics_table.h"
#include "ui/panels/next_tokens.h"
#include "ui/panels/plan_panel.h"
#include "ui/panels/row_recall_chart.h"
#include "ui/panels/run_panel.h"
#include "ui/panels/top_keys_list.h"
#include "ui/shell/banner.h"
#include "ui/shell/command_palette.h"
#include "ui/shell/dock.h"
#include "ui/shell/jobs_panel.h"
#include "ui/shell/main_window.h"
#include "ui/shell/start_page.h"
#include "ui/shell/summary_page.h"
#include "ui/shell/tour.h"

namespace sparsight::ui {
namespace {

constexpr int kLayoutVersion = 3;  ///< raised when docks are added: older saved states are dropped

constexpr int kRoomy = 900;  ///< window height from which three panels fit above each other

/// Docks by number; the order of makePanels().
enum Dock { Heads, Facts, RowRecall, Masks, Curve, Run, Text, Table, Plan, Jobs, Next, Top };

}  // namespace

void MainWindow::makePanels() {
    auto* centre = new QWidget(this);
    centre->setObjectName(QStringLiteral("centre"));
    centre->setAttribute(Qt::WA_StyledBackground);
    auto* column = new QVBoxLayout(centre);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(0);
    m_banner = new Banner(centre);
    m_centre = new QStackedWidget(centre);
    column->addWidget(m_banner);
    column->addWidget(m_centre, 1);
    m_decode = new DecodeBar(&m_document, centre);
    column->addWidget(m_decode);
    m_start = new StartPage(&m_commands, &m_settings, m_centre);
    m_map = new MapView(&m_document, &m_engine, m_centre);
    m_map->setObjectName(QStringLiteral("mapView"));
    m_map->setAccessibleName(tr("Attention map"));
    m_summary = new SummaryPage(&m_document, m_centre);
    m_centre->addWidget(m_start);
    m_centre->addWidget(m_map);
    m_centre->addWidget(m_summary);
    m_centre->installEventFilter(this);
    // The stack raises the page that it shows.
    connect(m_centre, &QStackedWidget::currentChanged, this, &MainWindow::placeTour);
    setCentralWidget(centre);

    m_table = new MetricsTable(&m_document, &m_engine);
    m_run = new RunPanel(&m_document, &m_engine);
    m_plan = new PlanPanel(&m_document, &m_engine);
    m_jobs = new JobsPanel(&m_engine);
    m_next = new NextTokens(&m_document, &m_engine);
    auto* facts = new HeadPanel(&m_document, &m_engine);
    auto* masks = new MaskPanel(&m_document, &m_engine);
    m_text = new TokenView(&m_document, &m_engine, nullptr);
    m_docks = {
        makeDock(QStringLiteral("dockHeads"), tr("Heads"),
                 new HeadGrid(&m_document, &m_engine, nullptr)),
        makeDock(QStringLiteral("dockFacts"), tr("Head facts"), scrolled(facts), facts->tools(),
                 tr("Facts")),
        makeDock(QStringLiteral("dockRowRecall"), tr("Row recall"),
                 new RowRecallChart(&m_document, &m_engine), nullptr, tr("Rows")),
        makeDock(QStringLiteral("dockMasks"), tr("Mask layers"), scrolled(masks), masks->tools()),
        makeDock(QStringLiteral("dockCurve"), tr("Recall against density"),
                 new CurveChart(&m_document, &m_engine)),
        makeDock(QStringLiteral("dockRun"), tr("This machine"), scrolled(m_run)),
        makeDock(QStringLiteral("dockText"), tr("Text"), m_text, m_text->tools()),
        makeDock(QStringLiteral("dockTable"), tr("Heads table"), m_table, m_table->tools()),
        makeDock(QStringLiteral("dockPlan"), tr("Plan"), m_plan),
        makeDock(QStringLiteral("dockJobs"), tr("Jobs"), scrolled(m_jobs)),
        makeDock(QStringLiteral("dockNext"), tr("Next token"), m_next, nullptr, tr("Next")),
        makeDock(QStringLiteral("dockTopKeys"), tr("Top keys"),
                 new TopKeysList(&m_document, &m_engine), nullptr, tr("Keys")),
    };
    for (QDockWidget* dock : m_docks) {
        addDockWidget(Qt::BottomDockWidgetArea, dock);
        connect(dock, &QDockWidget::visibilityChanged, this, &MainWindow::nameDockTabs,
                Qt::QueuedConnection);
    }

    m_tour = new TourPanel(&m_document, &m_engine, dataFolder() + QStringLiteral("/tour"),
                           m_options.seed, this);
    m_tour->installEventFilter(this);
    connect(m_tour, &TourPanel::sampleWanted, this, [this] {
        try {
            openSample(false);
        } catch (const std::exception& e) {
            fail(QString::fromUtf8(e.what()));
        }
    });
    connect(m_tour, &TourPanel::failed, this, &MainWindow::fail);
    connect(m_tour, &TourPanel::planMade, m_plan,
            [this](const AttentionPlan& plan) { m_plan->setPlan(plan); });
    connect(m_summary, &SummaryPage::inspect, this, [this] { setLayout(Layout::Inspect); });
    connect(m_map, &MapView::statusChanged, this,
            [this](const QString& perPixel, const QString& range, const QString& exactness) {
                m_tokensPerPixel = perPixel;
                m_range = range;
                m_exactness = exactness;
                refreshStatus();
            });
    connect(m_run, &RunPanel::finished, this,
            [this](const QString& summary) { m_statusRight->setText(summary); });
    connect(m_plan, &PlanPanel::planChanged, &m_commands, &Commands::refresh);
    connect(m_next, &NextTokens::changed, &m_commands, &Commands::refresh);
    connect(m_jobs, &JobsPanel::changed, this, [this] {
        const QString text = m_jobs->summary();
        m_jobsButton->setText(text.isEmpty() ? tr("no jobs") : text);
    });
}

void MainWindow::makeToolBar() {
    m_toolBar = addToolBar(tr("Main"));
    m_toolBar->setObjectName(QStringLiteral("toolBar"));
    m_toolBar->setMovable(false);
    const auto chip = [this](const char* name, const QString& help) {
        auto* label = new QLabel(m_toolBar);
        label->setObjectName(QLatin1String(name));
        label->setProperty("role", "chip");
        label->setToolTip(help);
        m_toolBar->addWidget(label);
        return label;
    };
    m_sessionChip = chip("chipSession", tr("The open session"));
    m_modelChip = chip("chipModel", tr("The captured model"));
    m_tokensChip =
        chip("chipTokens", tr("Tokens of the prompt, the gold answer of a needle included"));
    auto* field = m_goTo = new QPushButton(m_toolBar);
    field->setObjectName(QStringLiteral("goToField"));
    field->setAccessibleName(tr("Go to"));
    field->setToolTip(tr("Go to a head, token, text or command  (Ctrl+P)"));
    field->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
    field->setMinimumWidth(60);
    field->setStyleSheet(QStringLiteral("text-align: left;"));
    connect(field, &QPushButton::clicked, this, [this] { m_palette->open(false); });
    m_toolBar->addWidget(field);
    for (std::size_t i = 0; i < kLayoutNames.size(); ++i) {
        auto* button = new QPushButton(tr(kLayoutNames[i]), m_toolBar);
        button->setObjectName(QStringLiteral("layout%1").arg(QLatin1String(kLayoutNames[i])));
        button->setCheckable(true);
        button->setToolTip(tr("Layout %1  (Ctrl+Alt+%2)").arg(tr(kLayoutNames[i])).arg(i + 1));
        connect(button, &QPushButton::clicked, this, [this, i] {
            m_commands.run(QStringLiteral("view.layout%1").arg(QLatin1String(kLayoutNames[i])));
        });
        m_layoutButtons[i] = button;
        m_toolBar->addWidget(button);
    }
    m_deviceChip = chip("chipDevice", {});
    m_deviceChip->setCursor(Qt::PointingHandCursor);
    m_deviceChip->installEventFilter(this);
    auto* run = new QPushButton(tr("Run kernel"), m_toolBar);
    run->setObjectName(QStringLiteral("toolRun"));
    run->setProperty("role", "primary");
    run->setToolTip(
        tr("Measures dense and the active mask on this machine, at least five times each  (F5)"));
    connect(run, &QPushButton::clicked, this,
            [this] { m_commands.run(QStringLiteral("run.kernel")); });
    m_toolBar->addWidget(run);
}

void MainWindow::makeStatusBar() {
    m_statusLeft = new QLabel(this);
    m_statusLeft->setObjectName(QStringLiteral("statusLeft"));
    m_statusRight = new QLabel(this);
    m_statusRight->setObjectName(QStringLiteral("statusRight"));
    m_jobsButton = new QPushButton(tr("no jobs"), this);
    m_jobsButton->setObjectName(QStringLiteral("statusJobs"));
    m_jobsButton->setProperty("role", "flat");
    m_jobsButton->setToolTip(tr("Shows the jobs under way, to watch or cancel them"));
    connect(m_jobsButton, &QPushButton::clicked, this, [this] {
        m_docks[Jobs]->setVisible(m_docks[Jobs]->isHidden());
        m_docks[Jobs]->raise();
    });
    statusBar()->setSizeGripEnabled(false);
    statusBar()->setContentsMargins(8, 0, 8, 0);
    statusBar()->addWidget(m_statusLeft, 1);
    statusBar()->addPermanentWidget(m_statusRight);
    statusBar()->addPermanentWidget(m_jobsButton);
}

void MainWindow::defaultLayout(Layout layout) {
    // A layout's saved state restores only docks that it holds, so those left out stay as hidden
    // ones.
    for (std::size_t i = 0; i < m_docks.size(); ++i) {
        QDockWidget* dock = m_docks[i];
        dock->setFloating(false);
        removeDockWidget(dock);
        addDockWidget(i == Text || i == Table ? Qt::BottomDockWidgetArea : Qt::RightDockWidgetArea,
                      dock);
        dock->hide();
    }
    // The masks' column is the one that is worked in: it has the window's whole height.
    setCorner(Qt::BottomLeftCorner, Qt::BottomDockWidgetArea);
    setCorner(Qt::BottomRightCorner, Qt::RightDockWidgetArea);
    const auto put = [this](Qt::DockWidgetArea area, std::initializer_list<int> docks) {
        for (const int d : docks) {
            addDockWidget(area, m_docks[std::size_t(d)], Qt::Vertical);
            m_docks[std::size_t(d)]->show();
        }
    };
    const auto bottom = [this](std::initializer_list<int> docks) {
        for (const int d : docks) {
            addDockWidget(Qt::BottomDockWidgetArea, m_docks[std::size_t(d)], Qt::Horizontal);
            m_docks[std::size_t(d)]->show();
        }
    };
    const auto behind = [this](int front, int dock) {  // a tab of its own
        m_docks[std::size_t(dock)]->show();
        tabifyDockWidget(m_docks[std::size_t(front)], m_docks[std::size_t(dock)]);
        m_docks[std::size_t(front)]->raise();
    };
    const auto sizes = [this](std::initializer_list<int> docks, std::initializer_list<int> pixels,
                              Qt::Orientation along) {
        QList<QDockWidget*> list;
        for (const int d : docks) list << m_docks[std::size_t(d)];
        resizeDocks(list, QList<int>(pixels), along);
    };
    const bool low = height() < kRoomy;
    const int left = std::clamp(width() * 3 / 16, 236, 320),
              right = std::clamp(width() * 24 / 100, 310, 380),
              bottomHeight = std::max(170, height() * 19 / 100);
    switch (layout) {
        case Layout::Overview:
            put(Qt::LeftDockWidgetArea, {Heads, Facts});
            behind(Facts, Top);
            behind(Facts, Next);
            bottom({Text, Table});
            sizes({Heads, Table}, {left + width() / 10, width() / 2}, Qt::Horizontal);
            sizes({Text, Table}, {height() * 26 / 100, height() * 26 / 100}, Qt::Vertical);
            sizes({Heads, Facts}, {56, 44}, Qt::Vertical);
            break;
        case Layout::Inspect:
            put(Qt::LeftDockWidgetArea, {Heads, Facts, RowRecall});
            put(Qt::RightDockWidgetArea, {Masks, Curve, Run});
            bottom({Text, Table});
            if (low) {
                tabifyDockWidget(m_docks[Facts], m_docks[RowRecall]);
                tabifyDockWidget(m_docks[Curve], m_docks[Run]);
                m_docks[Facts]->raise();
                m_docks[Curve]->raise();
            }
            behind(Facts, Top);
            behind(Facts, Next);
            sizes({Heads, Masks}, {left, right}, Qt::Horizontal);
            sizes({Text, Table}, {53, 47}, Qt::Horizontal);
            sizes({Text}, {bottomHeight}, Qt::Vertical);
            sizes({Heads, Facts, RowRecall}, {41, 35, 24}, Qt::Vertical);
            if (low)
                sizes({Masks, Curve}, {height(), 190},
                      Qt::Vertical);  // the masks need what there is
            else
                sizes({Masks, Curve, Run}, {49, 23, 28}, Qt::Vertical);
            break;
        case Layout::Compare:
            put(Qt::LeftDockWidgetArea, {Heads, RowRecall});
            put(Qt::RightDockWidgetArea, {Masks, Run});
            bottom({Curve, Table});
            sizes({Heads, Masks}, {left, right}, Qt::Horizontal);
            sizes({Curve, Table}, {46, 54}, Qt::Horizontal);
            sizes({Curve}, {height() * 32 / 100}, Qt::Vertical);
            sizes({Masks, Run}, {62, 38}, Qt::Vertical);
            break;
        case Layout::Plan:
            put(Qt::LeftDockWidgetArea, {Heads, Masks});
            put(Qt::RightDockWidgetArea, {Plan});
            bottom({Table, Run});
            sizes({Heads, Plan}, {right, width() * 49 / 100}, Qt::Horizontal);
            sizes({Table}, {height() * 26 / 100}, Qt::Vertical);
            break;
    }
}

QString MainWindow::layoutKey(Layout layout) const {
    return QStringLiteral("layout/%1").arg(QLatin1String(kLayoutNames[std::size_t(layout)]));
}

void MainWindow::saveLayout() {
    m_settings.setValue(QStringLiteral("geometry"), saveGeometry());
    if (m_sessionUi)
        m_settings.setValue(layoutKey(m_layout),
                            m_mapAlone ? m_beforeAlone : saveState(kLayoutVersion));
    m_settings.setValue(QStringLiteral("layout/current"),
                        QLatin1String(kLayoutNames[std::size_t(m_layout)]));
}

void MainWindow::placeTour() {
    if (!m_tour || m_tour->isHidden()) return;
    // In a narrow layout it lies over the panels beside the map rather than being cut.
    const QPoint right = m_centre->mapTo(this, QPoint(m_centre->width(), 0));
    m_tour->move(std::max(8, right.x() - m_tour->width() - 12), right.y() + 12);
    m_tour->raise();
}

void MainWindow::setMapAlone(bool on) {
    if (on == m_mapAlone) return;
    if (on) {
        m_beforeAlone = saveState(kLayoutVersion);
        for (QDockWidget* dock : m_docks) dock->hide();
    } else {
        restoreState(m_beforeAlone, kLayoutVersion);
    }
    m_mapAlone = on;
    m_commands.refresh();
}

void MainWindow::setLayout(Layout layout) {
    setMapAlone(false);
    if (m_sessionUi && layout != m_layout) saveLayout();
    m_layout = layout;
    if (m_sessionUi) {
        const QByteArray saved = m_settings.value(layoutKey(layout)).toByteArray();
        if (saved.isEmpty() || !restoreState(saved, kLayoutVersion)) defaultLayout(layout);
        m_centre->setCurrentWidget(layout == Layout::Overview ? static_cast<QWidget*>(m_summary)
                                                              : m_map);
    }
    for (std::size_t i = 0; i < m_layoutButtons.size(); ++i)
        m_layoutButtons[i]->setChecked(Layout(i) == layout);
    nameDockTabs();
    refreshTitle();
    m_commands.refresh();
}

/// Qt makes the tab bars of docks itself, as docks are put onto each other.
void MainWindow::nameDockTabs() {
    int number = 0;
    for (QTabBar* tabs : findChildren<QTabBar*>(QString(), Qt::FindDirectChildrenOnly)) {
        if (tabs->count() < 2) {  // Qt leaves one behind at times, over whatever is there now
            tabs->hide();
            continue;
        }
        tabs->setObjectName(QStringLiteral("dockTabs%1").arg(++number));
        tabs->setAccessibleName(tr("Docks behind each other"));
        tabs->setElideMode(Qt::ElideNone);
        tabs->setUsesScrollButtons(true);
        for (int i = 0; i < tabs->count(); ++i)
            for (const QDockWidget* dock : m_docks)
                if (dock->windowTitle() == tabs->tabText(i))
                    tabs->setTabToolTip(i, dock->toggleViewAction()->text());
    }
}

void MainWindow::resetLayout() {
    setMapAlone(false);
    m_settings.remove(layoutKey(m_layout));
    if (m_sessionUi) defaultLayout(m_layout);
    nameDockTabs();
}

void MainWindow::showStartPage() {
    m_toolBar->hide();
    for (QDockWidget* dock : m_docks) {
        dock->hide();
        dock->toggleViewAction()->setEnabled(false);  // panels without a session would be empty
    }
    m_centre->setCurrentWidget(m_start);
}

void MainWindow::setSessionUi(bool open) {
    if (open == m_sessionUi) return;
    setMapAlone(false);
    if (!open) saveLayout();
    m_sessionUi = open;
    if (!open) {
        showStartPage();
        return;
    }
    m_toolBar->show();
    for (QDockWidget* dock : m_docks) dock->toggleViewAction()->setEnabled(true);
    setLayout(m_layout);
    m_map->setFocus();
}

}  // namespace sparsight::ui
