#include "ui/shell/main_window.h"

#include <QAction>
#include <QApplication>
#include <QCloseEvent>
#include <QDir>
#include <QDragEnterEvent>
#include <QJsonObject>
#include <QLabel>
#include <QMimeData>
#include <QPushButton>
#include <QScreen>
#include <QStackedWidget>
#include <QStandardPaths>
#include <QStatusBar>
#include <algorithm>

#include "ui/panels/plan_panel.h"
#include "ui/shell/banner.h"
#include "ui/shell/command_palette.h"
#include "ui/shell/mask_history.h"
#include "ui/shell/recent.h"
#include "ui/shell/start_page.h"
#include "ui/shell/theme.h"
#include "ui/shell/tour.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr int kRoomyWidth = 1440;
constexpr int kLongName = 260, kShortName = 130;  ///< pixels of a name in the tool bar
constexpr double kSurroundings = 64;              ///< tokens in view about a centred selection

QString settingsFile(const GuiOptions& options) {
    if (!options.settings.isEmpty())
        return QDir(options.settings).filePath(QStringLiteral("sparsight.ini"));
    return QDir(QStandardPaths::writableLocation(QStandardPaths::AppConfigLocation))
        .filePath(QStringLiteral("sparsight.ini"));
}

}  // namespace

MainWindow::MainWindow(const GuiOptions& options)
    : m_options(options),
      m_settings(settingsFile(options), QSettings::IniFormat),
      m_analysis(&m_document, &m_engine),
      m_commands(this) {
    setObjectName(QStringLiteral("mainWindow"));
    setAcceptDrops(true);
    setAnimated(false);
    setDockNestingEnabled(true);
    setDockOptions(QMainWindow::AllowNestedDocks | QMainWindow::AllowTabbedDocks);
    m_commands.setRecent(m_settings.value(QStringLiteral("recentCommands")).toStringList());
    m_history = new MaskHistory(&m_document, this);
    m_palette = new CommandPalette(&m_document, &m_commands, this);
    addFileCommands();
    addCaptureCommands();
    addViewCommands();
    addHeadCommands();
    addMaskCommands();
    addPlanCommands();
    addHelpCommands();
    addTestCommands();
    makePanels();
    addDeviceCommand();
    makeToolBar();
    makeStatusBar();
    makeMenus();
    watchDocument();
    connect(&m_commands, &Commands::failed, this, &MainWindow::fail);
    connect(&m_analysis, &Analysis::failed, this, &MainWindow::fail);
    connect(m_history, &MaskHistory::changed, &m_commands, &Commands::refresh);
    const auto captures = [this](const QString& tag) {
        if (tag == QLatin1String("capture")) m_commands.refresh();
    };
    connect(&m_engine, &Engine::began, this, captures);
    connect(&m_engine, &Engine::ended, this, captures);

    MapStyle style;
    style.log = m_settings.value(QStringLiteral("map/log"), true).toBool();
    style.pool = kernels::Statistic(
        m_settings.value(QStringLiteral("map/pool"), int(kernels::Statistic::Max)).toInt());
    style.colours =
        ColourMap(m_settings.value(QStringLiteral("map/colours"), int(ColourMap::Magma)).toInt());
    m_document.setStyle(style);
    startMasks();
    m_history->clear();

    for (std::size_t i = 0; i < kLayoutNames.size(); ++i)
        if (m_settings.value(QStringLiteral("layout/current"), QStringLiteral("Inspect"))
                .toString() == QLatin1String(kLayoutNames[i]))
            m_layout = Layout(i);
    resize(QSize(1600, 1000).boundedTo(screen()->availableSize()));
    if (m_options.geometry.isValid())
        resize(m_options.geometry);
    else
        restoreGeometry(m_settings.value(QStringLiteral("geometry")).toByteArray());
    showStartPage();
    refreshTitle();
    refreshChips();
    refreshStatus();
    m_commands.refresh();
    uiLog(QStringLiteral("started"));
}

QString MainWindow::storedTheme(const GuiOptions& options) {
    return QSettings(settingsFile(options), QSettings::IniFormat)
        .value(QStringLiteral("theme"))
        .toString();
}

MainWindow::~MainWindow() {
    m_engine.finish();
}

bool MainWindow::idle() const {
    return !m_analysis.busy();
}

void MainWindow::fail(const QString& sentence) {
    uiLog(QStringLiteral("error"), {{QStringLiteral("sentence"), sentence}});
    m_banner->showMessage(sentence);
}

QString MainWindow::dataFolder() const {
    if (!m_options.settings.isEmpty()) return QDir(m_options.settings).absolutePath();
    return QStandardPaths::writableLocation(QStandardPaths::AppDataLocation);
}

void MainWindow::startMasks() {
    std::vector<MaskLayer> masks;
    for (const char* text : {"a-shape:sink=4,window=256", "vertical-slash:vertical=16,slash=64",
                             "antidiagonal", kRetrievalLayer, "oracle-blocks"}) {
        MaskLayer layer = maskLayer(text);
        layer.visible = masks.size() < 2;
        masks.push_back(layer);
    }
    m_document.setMasks(std::move(masks));
    m_document.setActiveMask(1);
}

// --- the document's echo -----------------------------------------------------------------------

void MainWindow::watchDocument() {
    connect(&m_document, &Document::captureChanged, this, [this] {
        refreshTitle();
        refreshChips();
        refreshStatus();
        m_commands.refresh();
    });
    connect(&m_document, &Document::headChanged, this, [this] {
        refreshTitle();
        refreshStatus();
        logSelection(QStringLiteral("head"));
    });
    connect(&m_document, &Document::queryChanged, this,
            [this] { logSelection(QStringLiteral("query")); });
    connect(&m_document, &Document::keyChanged, this,
            [this] { logSelection(QStringLiteral("key")); });
    connect(&m_document, &Document::styleChanged, this, [this] {
        const MapStyle& s = m_document.style();
        m_settings.setValue(QStringLiteral("map/log"), s.log);
        m_settings.setValue(QStringLiteral("map/pool"), int(s.pool));
        m_settings.setValue(QStringLiteral("map/colours"), int(s.colours));
        refreshStatus();
        m_commands.refresh();
    });
    connect(&m_document, &Document::masksChanged, &m_commands, &Commands::refresh);
    connect(&m_document, &Document::factsChanged, this, [this] {
        rememberPicture(m_settings, m_document);
        m_commands.refresh();
    });
}

void MainWindow::logSelection(const QString& what) {
    if (!m_document.isOpen()) return;
    uiLog(QStringLiteral("selection"), {{QStringLiteral("what"), what},
                                        {QStringLiteral("layer"), qint64(m_document.layer())},
                                        {QStringLiteral("head"), qint64(m_document.head())},
                                        {QStringLiteral("query"), qint64(m_document.query())},
                                        {QStringLiteral("key"), qint64(m_document.key())}});
}

void MainWindow::refreshTitle() {
    setWindowTitle(m_document.isOpen()
                       ? QStringLiteral("Sparsight — %1 — L%2 H%3 — %4")
                             .arg(m_document.sessionName())
                             .arg(m_document.layer())
                             .arg(m_document.head())
                             .arg(QLatin1String(kLayoutNames[std::size_t(m_layout)]))
                       : QStringLiteral("Sparsight — start"));
}

void MainWindow::refreshChips() {
    const auto chip = [](QLabel* label, const QString& name, const QString& value) {
        label->setText(QStringLiteral("<span style='color:%1;font-size:11px'>%2</span>&nbsp; %3")
                           .arg(theme().muted.name(), name, value.toHtmlEscaped()));
    };
    const bool open = m_document.isOpen();
    const auto& c = m_document.capture();
    // A narrow window says less: what a chip leaves out stands in its tool tip.
    const bool roomy = width() >= kRoomyWidth;
    const auto elided = [this, roomy](const QString& name) {
        return fontMetrics().elidedText(name, Qt::ElideMiddle, roomy ? kLongName : kShortName);
    };
    chip(m_sessionChip, tr("session"), elided(m_document.sessionName()));
    m_sessionChip->setToolTip(
        tr("The open session: %1")
            .arg(open ? QString::fromStdString(m_document.session()->path().string()) : QString()));
    const QString shape = roomy ? tr(" · %1 layers × %2 heads (%3 KV) · d %4")
                                      .arg(c.config.layers)
                                      .arg(c.config.heads)
                                      .arg(c.config.kvHeads)
                                      .arg(c.config.headDim)
                                : tr(" · %1 × %2").arg(c.config.layers).arg(c.config.heads);
    chip(m_modelChip, tr("model"), elided(QString::fromStdString(c.modelName)) + shape);
    m_modelChip->setToolTip(
        tr("The captured model: %1, %2 layers × %3 heads (%4 of keys), width %5")
            .arg(QString::fromStdString(c.modelName))
            .arg(c.config.layers)
            .arg(c.config.heads)
            .arg(c.config.kvHeads)
            .arg(c.config.headDim));
    m_goTo->setText(roomy ? tr("Go to head, token, text or command …   Ctrl+P")
                          : tr("Go to …   Ctrl+P"));
    chip(m_tokensChip, tr("tokens"), thousands(m_document.tokens()));
    const auto backend = m_engine.backend(Engine::Long);
    const QString device =
        QString::fromStdString(backend->device()).section(QLatin1Char(','), 0, 0);
    const bool onCpu = m_engine.device() == QLatin1String("cpu");
    const QString threads = tr("%1 threads").arg(backend->threads());
    chip(m_deviceChip, tr("device"),
         !roomy  ? onCpu ? device : m_engine.device()
          : onCpu ? tr("%1 · %2").arg(device, threads)
                 : tr("%1 · %2").arg(m_engine.device(), device));
    m_deviceChip->setToolTip(
        tr("%1, %2, kernel path %3. Click to choose another device.")
            .arg(QString::fromStdString(backend->device()), threads,
                 QString::fromUtf8(backend->id().data(), qsizetype(backend->id().size()))));
    for (QLabel* label : {m_sessionChip, m_modelChip, m_tokensChip}) label->setEnabled(open);
}

void MainWindow::refreshStatus() {
    if (!m_document.isOpen()) {
        m_statusLeft->setText(tr("No session is open"));
        m_statusRight->clear();
        return;
    }
    const auto item = [](const QString& name, const QString& value) {
        return QStringLiteral("%1 <span style='color:%2'>%3</span>")
            .arg(name, theme().text.name(), value);
    };
    const MapStyle& s = m_document.style();
    const char* pools[] = {"sum", "mean", "max"};
    QStringList left{
        QStringLiteral("<b style='color:%1'>%2</b>")
            .arg(theme().text.name(), m_document.headText(m_document.layer(), m_document.head())),
        item(QStringLiteral("n"),
             m_document.rows() == m_document.keys()
                 ? thousands(m_document.keys())
                 : QStringLiteral("%1 × %2").arg(thousands(m_document.rows()),
                                                 thousands(m_document.keys())))};
    if (!m_tokensPerPixel.isEmpty()) left << m_tokensPerPixel;
    left << item(tr("pool"), QLatin1String(pools[std::size_t(s.pool)]))
         << item(tr("scale"), s.log ? tr("log") : tr("linear"));
    if (!m_range.isEmpty()) left << m_range;
    if (!m_exactness.isEmpty()) left << m_exactness;
    m_statusLeft->setText(left.join(QStringLiteral("&nbsp;&nbsp;&nbsp;&nbsp; ")));
    const auto& c = m_document.capture();
    m_statusRight->setText(tr("capture %1 · %2 heads · self-check %3")
                               .arg(QString::fromStdString(c.state))
                               .arg(headCount(c))
                               .arg(c.massError, 0, 'e', 1));
}

// --- moving about ------------------------------------------------------------------------------

void MainWindow::stepHead(int layers, int heads) {
    const auto& done = m_document.capture().layersDone;
    const Index perLayer = m_document.capture().config.heads;
    const auto here = std::find(done.begin(), done.end(), m_document.layer());
    if (here == done.end() || perLayer <= 0) return;
    const Index count = Index(done.size()) * perLayer;
    const Index at = (here - done.begin() + layers) * perLayer + m_document.head() + heads;
    if (at < 0 || at >= count) return;
    m_document.selectHead(done[std::size_t(at / perLayer)], at % perLayer);
}

void MainWindow::zoom(double factor) {
    const MapRect& v = m_document.view();
    // About the selection when it is in sight, else about the middle.
    const auto anchor = [](double from, double to, Index at) {
        const double centre = double(at) + 0.5;
        return at < 0 || centre < from || centre >= to ? (from + to) / 2 : centre;
    };
    m_document.setView(zoomed(v, m_document.mapSize(), factor,
                              anchor(v.q0, v.q1, m_document.query()),
                              anchor(v.k0, v.k1, m_document.key())));
}

void MainWindow::pan(double rows, double columns) {
    const MapRect& v = m_document.view();
    m_document.setView(
        panned(v, m_document.mapSize(), rows * (v.q1 - v.q0), columns * (v.k1 - v.k0)));
}

void MainWindow::centreSelection() {
    const Index query = m_document.query(), key = m_document.key();
    if (query < 0 && key < 0) return;
    const MapSize n = m_document.mapSize();
    MapRect v = centredOn(m_document.view(), n, query, key);
    if (v == m_document.view()) {
        // Centred already: the second press fits the surroundings of the selection.
        v = centredOn(
            {v.q0, v.q0 + std::min(n.q, kSurroundings), v.k0, v.k0 + std::min(n.k, kSurroundings)},
            n, query, key);
    }
    m_document.setView(v);
}

// --- events ------------------------------------------------------------------------------------

void MainWindow::closeEvent(QCloseEvent* event) {
    saveUiState();
    rememberPicture(m_settings, m_document);
    saveLayout();
    m_settings.setValue(QStringLiteral("recentCommands"), m_commands.recent());
    m_settings.sync();
    m_engine.stopAll();
    uiLog(QStringLiteral("quit"));
    event->accept();
}

void MainWindow::dragEnterEvent(QDragEnterEvent* event) {
    if (event->mimeData()->hasUrls()) event->acceptProposedAction();
}

void MainWindow::dropEvent(QDropEvent* event) {
    const auto urls = event->mimeData()->urls();
    if (urls.isEmpty()) return;
    event->acceptProposedAction();
    QStringList files;
    for (const QUrl& url : urls) {
        if (!url.isLocalFile()) {
            fail(tr("'%1' is not a local file: download it first.").arg(url.toString()));
            return;
        }
        files << url.toLocalFile();
    }
    openPaths(files);
}

void MainWindow::resizeEvent(QResizeEvent* event) {
    QMainWindow::resizeEvent(event);
    refreshChips();
}

bool MainWindow::eventFilter(QObject* watched, QEvent* event) {
    const bool placed = event->type() == QEvent::Resize || event->type() == QEvent::Show;
    if (placed && (watched == m_centre || watched == m_tour)) placeTour();
    if (watched == m_deviceChip && event->type() == QEvent::MouseButtonRelease)
        m_commands.run(QStringLiteral("device.choose"));
    return QMainWindow::eventFilter(watched, event);
}

void MainWindow::changeEvent(QEvent* event) {
    QMainWindow::changeEvent(event);
    if (event->type() != QEvent::PaletteChange || !m_sessionChip || !m_statusLeft) return;
    refreshChips();
    refreshStatus();
}

}  // namespace sparsight::ui
