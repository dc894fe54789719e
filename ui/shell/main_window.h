#pragma once

#include <QMainWindow>
#include <QSettings>
#include <QTimer>
#include <array>

#include "ui/analysis.h"
#include "ui/document.h"
#include "ui/engine.h"
#include "ui/shell/capture_job.h"
#include "ui/shell/command.h"
#include "ui/shell/gui_options.h"

class QDockWidget;
class QHBoxLayout;
class QLabel;
class QPushButton;
class QStackedWidget;
class QToolBar;

namespace sparsight {
struct DeviceList;
}

namespace sparsight::ui {

class Banner;
class CaptureDialog;
class DecodeBar;
class ImportDialog;
class CommandPalette;
class JobsPanel;
class MapView;
class MaskHistory;
class MetricsTable;
class NextTokens;
class PlanPanel;
class RunPanel;
class StartPage;
class SummaryPage;
class TokenView;
class TourPanel;

enum class Layout { Overview, Inspect, Compare, Plan };
inline constexpr std::array<const char*, 4> kLayoutNames{"Overview", "Inspect", "Compare", "Plan"};

/// The standard layer of the method that only a needle prompt can answer for.
inline constexpr const char* kRetrievalLayer = "retrieval-heads:sink=4,window=256";

/// The window: it makes the document, the engine and the panels, and owns every command.
class MainWindow : public QMainWindow {
    Q_OBJECT
public:
    explicit MainWindow(const GuiOptions& options);
    ~MainWindow() override;
    /// The theme chosen last time, by name; needed before the first window is made.
    static QString storedTheme(const GuiOptions& options);

    /// Opens whatever the path is: session, model, plan, text, …; what it cannot open gives one
    /// sentence in the banner.
    void openPath(const QString& path);
    /// Files dropped together: several are tensors of one import, else the first is opened.
    void openPaths(const QStringList& paths);
    /// @param capture  uuid, "" = the newest
    /// A failure comes later, as a sentence in the banner.
    void openSession(const QString& path, const QString& capture = {});
    /// @throws Error(NotFound) for a capture without a finished layer
    void showCapture(std::shared_ptr<sessions::Session> session, sessions::CaptureInfo capture);
    void closeSession();
    /// Nothing is computing, waiting or left to paint.
    bool idle() const;
    void fail(const QString& sentence);

    Document& document() { return m_document; }
    Engine& engine() { return m_engine; }
    Commands& commands() { return m_commands; }
    CommandPalette& palette() { return *m_palette; }
    Banner& banner() { return *m_banner; }
    TourPanel& tour() { return *m_tour; }
    PlanPanel& planPanel() { return *m_plan; }
    bool isTest() const { return m_options.test(); }

protected:
    void closeEvent(QCloseEvent* event) override;
    void dragEnterEvent(QDragEnterEvent* event) override;
    void dropEvent(QDropEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;
    void changeEvent(QEvent* event) override;
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    // main_window_layout.cpp
    void makePanels();
    void makeToolBar();
    void makeStatusBar();
    void defaultLayout(Layout layout);
    void setLayout(Layout layout);
    void resetLayout();
    void placeTour();  ///< at the right end of the map, in front of everything
    void setMapAlone(bool on);
    void nameDockTabs();
    void saveLayout();
    void setSessionUi(bool open);
    void showStartPage();
    QString layoutKey(Layout layout) const;
    // main_window_commands.cpp
    void addFileCommands();
    void addCaptureCommands();
    void addViewCommands();
    void addHeadCommands();
    void addMaskCommands();
    void addPlanCommands();
    void addHelpCommands();
    void addTestCommands();
    void makeMenus();
    // main_window_device.cpp
    void addDeviceCommand();
    void chooseDevice();  ///< asks which devices there are, then shows the menu
    void showDeviceMenu(const DeviceList& list);
    std::function<QString()> needsSession() const;
    std::function<QString()> needsMask() const;
    // main_window.cpp
    void refreshTitle();
    void refreshChips();
    void refreshStatus();
    void watchDocument();
    void logSelection(const QString& what);
    void stepHead(int layers, int heads);
    void zoom(double factor);
    void pan(double rows, double columns);
    void centreSelection();
    void openSample(bool startTour);
    void captureSample();
    void sampleFailed(const std::exception& why);
    void showResult(const CaptureResult& result);
    void showCaptureDialog(const QString& model, const QString& textFile);
    void showImportDialog(const QStringList& files);
    void captured(const CaptureResult& result);
    void resumeCapture();
    void exportFigure(const QJsonObject& args);
    void startMasks();  ///< the layers that a first session shows
    void saveUiState();
    void restoreUiState();
    QString dataFolder() const;  ///< a writable place for sessions
    void showKeySheet();

    GuiOptions m_options;
    QSettings m_settings;
    Document m_document;
    Engine m_engine;
    Analysis m_analysis;
    Commands m_commands;
    Layout m_layout = Layout::Inspect;
    bool m_sessionUi = false, m_mapAlone = false;
    QByteArray m_beforeAlone;
    std::vector<QDockWidget*> m_docks;
    QStackedWidget* m_centre = nullptr;
    StartPage* m_start = nullptr;
    SummaryPage* m_summary = nullptr;
    MapView* m_map = nullptr;
    DecodeBar* m_decode = nullptr;
    TokenView* m_text = nullptr;
    Banner* m_banner = nullptr;
    CommandPalette* m_palette = nullptr;
    JobsPanel* m_jobs = nullptr;
    PlanPanel* m_plan = nullptr;
    RunPanel* m_run = nullptr;
    NextTokens* m_next = nullptr;
    MetricsTable* m_table = nullptr;
    TourPanel* m_tour = nullptr;
    MaskHistory* m_history = nullptr;
    CaptureDialog* m_captureDialog = nullptr;
    ImportDialog* m_importDialog = nullptr;
    QToolBar* m_toolBar = nullptr;
    QLabel *m_sessionChip = nullptr, *m_modelChip = nullptr, *m_tokensChip = nullptr,
           *m_deviceChip = nullptr;
    QPushButton* m_goTo = nullptr;
    std::array<QPushButton*, 4> m_layoutButtons{};
    QLabel *m_statusLeft = nullptr, *m_statusRight = nullptr;
    QPushButton* m_jobsButton = nullptr;
    QString m_tokensPerPixel, m_range, m_exactness;
};

}  // namespace sparsight::ui
