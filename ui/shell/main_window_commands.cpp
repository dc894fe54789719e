// Commands about files, captures, plans and help; and the menus.
#include <QAction>
#include <QApplication>
#include <QClipboard>
#include <QDir>
#include <QDockWidget>
#include <QFileDialog>
#include <QFileInfo>
#include <QJsonArray>
#include <QMenuBar>
#include <QStackedWidget>

#include "core/export/plan_export.h"
#include "ui/panels/figure_dialog.h"
#include "ui/panels/metrics_table.h"
#include "ui/panels/next_tokens.h"
#include "ui/panels/plan_panel.h"
#include "ui/panels/run_panel.h"
#include "ui/shell/banner.h"
#include "ui/shell/command_palette.h"
#include "ui/shell/jobs_panel.h"
#include "ui/shell/key_sheet.h"
#include "ui/shell/main_window.h"
#include "ui/shell/recent.h"
#include "ui/shell/theme.h"
#include "ui/shell/tour.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
std::function<QString()> MainWindow::needsSession() const {
    return [this] {
        return m_document.isOpen() ? QString() : tr("Open a session or capture a prompt first.");
    };
}

std::function<QString()> MainWindow::needsMask() const {
    return [this] {
        if (!m_document.isOpen()) return tr("Open a session or capture a prompt first.");
        return m_document.activeMask() >= 0 ? QString() : tr("Add a mask layer first.");
    };
}

void MainWindow::addFileCommands() {
    m_commands.add({"file.sample",
                    tr("See the bundled sample"),
                    {},
                    [this](const QJsonObject&) { openSample(false); },
                    {},
                    {},
                    tr("Captures the demo prompt with the bundled model (or opens that session "
                       "when it is there) and shows the head that finds the pass key")});
    m_commands.add({"file.openSession",
                    tr("Open session…"),
                    QKeySequence::Open,
                    [this](const QJsonObject& args) {
                        QString path = argument(args, "path");
                        if (path.isEmpty())
                            path = QFileDialog::getExistingDirectory(
                                this, tr("Open session: a folder NAME.sparsight"), dataFolder());
                        if (!path.isEmpty()) openSession(path, argument(args, "capture"));
                    },
                    {},
                    {},
                    tr("Opens a .sparsight folder (path, capture)")});
    m_commands.add(
        {"file.openPlan",
         tr("Open plan…"),
         {},
         [this](const QJsonObject& args) {
             QString path = argument(args, "path");
             if (path.isEmpty())
                 path = QFileDialog::getOpenFileName(
                     this, tr("Open plan"), {}, tr("Plans (*.json *.csv *.tsv);;All files (*)"));
             if (path.isEmpty()) return;
             if (!m_document.isOpen())
                 throw Error(Errc::Usage, tr("Open a session first: a plan is checked against its "
                                             "model, and '%1' alone does not hold one.")
                                              .arg(QFileInfo(path).fileName())
                                              .toStdString());
             m_plan->setPlan(importPlan(path.toStdString(), m_document.capture().config));
             setLayout(Layout::Plan);
         },
         {},
         {},
         tr("Reads a Sparsight plan, a MInference JSON, a DuoAttention table or a CSV (path)")});
    m_commands.add({"file.open",
                    tr("Open anything…"),
                    QKeySequence("Ctrl+Shift+O"),
                    [this](const QJsonObject& args) {
                        QString path = argument(args, "path");
                        if (path.isEmpty()) path = QFileDialog::getOpenFileName(this, tr("Open"));
                        if (!path.isEmpty()) openPath(path);
                    },
                    {},
                    {},
                    tr("As if the file had been dropped on the window (path)")});
    m_commands.add({"file.import",
                    tr("Import tensors…"),
                    QKeySequence("Ctrl+I"),
                    [this](const QJsonObject& args) {
                        QStringList files;
                        for (const QJsonValue& file : args.value(QStringLiteral("paths")).toArray())
                            files << file.toString();
                        showImportDialog(files);
                    },
                    {},
                    {},
                    tr("Makes a session of q, k and v that another program wrote: safetensors, "
                       ".npz, .npy, HDF5 (paths)")});
    m_commands.add({"file.close",
                    tr("Close session"),
                    QKeySequence("Ctrl+W"),
                    [this](const QJsonObject&) { closeSession(); },
                    needsSession(),
                    {},
                    {}});
    for (int i = 1; i <= 9; ++i)
        m_commands.add(
            {QStringLiteral("file.recent%1").arg(i),
             tr("Open recent session %1").arg(i),
             QKeySequence(QStringLiteral("Ctrl+%1").arg(i)),
             [this, i](const QJsonObject&) {
                 const auto list = recentSessions(m_settings, 9);
                 if (i > int(list.size()))
                     throw Error(
                         Errc::NotFound,
                         tr("There are only %1 recent sessions.").arg(list.size()).toStdString());
                 openSession(list[std::size_t(i - 1)].path);
             },
             {},
             {},
             {},
             i <= 3});
    m_commands.add(
        {"figure.export",
         tr("Export figure…"),
         QKeySequence("Ctrl+E"),
         [this](const QJsonObject& args) { exportFigure(args); },
         needsSession(),
         {},
         tr("PNG, SVG or PDF of the map with axes, colour bar, overlays and caption (file)")});
    m_commands.add({"figure.copy",
                    tr("Copy the map as a picture"),
                    QKeySequence("Ctrl+Shift+C"),
                    [this](const QJsonObject&) {
                        QApplication::clipboard()->setPixmap(m_centre->currentWidget()->grab());
                    },
                    needsSession(),
                    {},
                    tr("The map as it is shown, as a bitmap")});
    m_commands.add({"file.quit",
                    tr("Quit"),
                    QKeySequence("Ctrl+Q"),
                    [this](const QJsonObject&) { close(); },
                    {},
                    {},
                    {}});
}

void MainWindow::addCaptureCommands() {
    m_commands.add({"capture.new",
                    tr("Open model and capture…"),
                    QKeySequence::New,
                    [this](const QJsonObject& args) {
                        showCaptureDialog(argument(args, "model"), argument(args, "text"));
                    },
                    {},
                    {},
                    tr("Chooses a model and a prompt, says what the capture takes, runs it and "
                       "opens it (model, text)")});
    m_commands.add(
        {"capture.run",
         tr("Capture without a dialog"),
         {},
         [this](const QJsonObject& args) {
             requireArgument(args, "model");
             requireArgument(args, "out");
             CaptureOrder order;
             order.device = m_engine.device();
             order.model = argument(args, "model");
             order.out = argument(args, "out");
             order.layers = argument(args, "layers");
             order.text = argument(args, "text");
             order.decode = args.value(QLatin1String("decode")).toInt();
             order.decodeSteps = argument(args, "steps");
             if (args.contains(QLatin1String("probe")))
                 order.needle = parseProbe(argument(args, "probe").toStdString());
             order.topKeys = args.value(QLatin1String("topKeys")).toBool();
             const QString store = argument(args, "store");
             if (store == QLatin1String("bf16")) order.store = kernels::DType::BF16;
             if (store == QLatin1String("f16")) order.store = kernels::DType::F16;
             auto work = [order, backend = m_engine.backend(Engine::Long)](const Job& job) {
                 return runCapture(order, *backend, job);
             };
             m_engine.run(Engine::Long, QStringLiteral("capture"), std::move(work))
                 .then(this, [this](const CaptureResult& result) { captured(result); })
                 .onFailed(this,
                           [this](const std::exception& e) { fail(QString::fromUtf8(e.what())); });
         },
         {},
         {},
         tr("For scripts (model, text or probe, layers, store, topKeys, out)"),
         false});
    m_commands.add({"capture.resume",
                    tr("Resume this capture"),
                    {},
                    [this](const QJsonObject&) { resumeCapture(); },
                    [this] {
                        if (!m_document.isOpen())
                            return tr("Open a session or capture a prompt first.");
                        return m_document.capture().complete() ? tr("This capture is complete.")
                                                               : QString();
                    },
                    {},
                    tr("Goes on with the layers that are still missing")});
    m_commands.add({"capture.cancel",
                    tr("Cancel the capture"),
                    {},
                    [this](const QJsonObject&) { m_engine.stop(QStringLiteral("capture")); },
                    [this] {
                        return m_engine.runs(QStringLiteral("capture"))
                                   ? QString()
                                   : tr("No capture is running.");
                    },
                    {},
                    tr("Stops it within half a second; finished layers stay")});
    m_commands.add({"jobs.cancelAll",
                    tr("Cancel all jobs"),
                    {},
                    [this](const QJsonObject&) { m_engine.stopAll(); },
                    {},
                    {},
                    {}});
}

void MainWindow::addPlanCommands() {
    const auto needsPlan = [this] {
        return m_plan && m_plan->plan() ? QString() : tr("Make or open a plan first.");
    };
    m_commands.add({"plan.make",
                    tr("Make plan"),
                    {},
                    [this](const QJsonObject&) { m_plan->make(); },
                    needsSession(),
                    {},
                    tr("By the rule chosen in the plan panel")});
    m_commands.add({"plan.uniform",
                    tr("One mask on all heads"),
                    {},
                    [this](const QJsonObject& args) {
                        requireArgument(args, "method");
                        m_plan->setPlan(
                            uniformPlan(planModel(m_document.capture().config),
                                        parseMethod(argument(args, "method").toStdString())));
                    },
                    needsSession(),
                    {},
                    tr("For scripts (method)"),
                    false});
    m_commands.add({"plan.judge",
                    tr("Judge the plan by the model"),
                    {},
                    [this](const QJsonObject&) { m_plan->judge(); },
                    needsPlan,
                    {},
                    tr("Runs the captured prompt dense and under the plan, and compares what the "
                       "model says")});
    m_commands.add({"capture.nextTokens",
                    tr("Ask the model for the next token"),
                    {},
                    [this](const QJsonObject&) {
                        for (QWidget* w = m_next; w; w = w->parentWidget())
                            if (auto* dock = qobject_cast<QDockWidget*>(w)) {
                                dock->show();
                                dock->raise();
                            }
                        m_next->ask();
                    },
                    [this] { return m_next ? m_next->obstacle() : QString(); },
                    {},
                    tr("The ten likeliest tokens after the selected one")});
    m_commands.add({"plan.export",
                    tr("Export plan…"),
                    QKeySequence("Ctrl+Shift+E"),
                    [this](const QJsonObject& args) {
                        const QString file = argument(args, "file");
                        if (file.isEmpty()) {
                            m_plan->exportPlanAs();
                            return;
                        }
                        const QString target = args.contains(QLatin1String("to"))
                                                   ? argument(args, "to")
                                                   : QStringLiteral("sparsight");
                        const QString error = m_plan->exportTo(
                            target, file, args.value(QLatin1String("allowLoss")).toBool());
                        if (!error.isEmpty()) throw Error(Errc::Usage, error.toStdString());
                    },
                    needsPlan,
                    {},
                    tr("For MInference, DuoAttention or as a table (file, to, allowLoss)")});
    m_commands.add({"table.copy",
                    tr("Copy the heads table"),
                    {},
                    [this](const QJsonObject&) { m_table->copy(); },
                    needsSession(),
                    {},
                    tr("As tab-separated text, the selected rows or all")});
}

void MainWindow::addHelpCommands() {
    m_commands.add({"help.tour",
                    tr("Tour of the sample"),
                    {},
                    [this](const QJsonObject&) { m_tour->begin(); },
                    {},
                    {},
                    tr("Five clicks: what one head remembers, measured on this machine")});
    m_commands.add({"help.keys",
                    tr("Keys"),
                    QKeySequence("?"),
                    [this](const QJsonObject&) { showKeySheet(); },
                    {},
                    {},
                    tr("All keys on one sheet")});
    m_commands.add(
        {"help.about",
         tr("About Sparsight"),
         {},
         [this](const QJsonObject&) {
             m_banner->showMessage(
                 tr("Sparsight %1, Apache-2.0; Qt %2; kernels: %3 on %4.")
                     .arg(QApplication::applicationVersion(), QString::fromLatin1(qVersion()),
                          QString::fromStdString(std::string(m_engine.backend(Engine::Long)->id())),
                          QString::fromStdString(m_engine.backend(Engine::Long)->device())));
         },
         {},
         {},
         {}});
}

void MainWindow::exportFigure(const QJsonObject& args) {
    auto* dialog = new FigureDialog(&m_document, &m_engine, this);
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    connect(dialog, &FigureDialog::exported, this, [](const QString& file) {
        uiLog(QStringLiteral("export"), {{QStringLiteral("file"), file}});
    });
    connect(dialog, &FigureDialog::failed, this, &MainWindow::fail);
    const QString file = argument(args, "file");
    if (file.isEmpty()) {
        dialog->show();
        return;
    }
    connect(dialog, &FigureDialog::exported, dialog, &QDialog::close);
    dialog->exportTo(file);
}

void MainWindow::showKeySheet() {
    auto* sheet = new KeySheet(m_commands, this);
    sheet->setAttribute(Qt::WA_DeleteOnClose);
    sheet->show();
}

void MainWindow::makeMenus() {
    const auto menu = [this](const QString& title, const QStringList& ids) {
        QMenu* m = menuBar()->addMenu(title);
        m->setObjectName(QStringLiteral("menu") + QString(title).remove(QLatin1Char('&')));
        m->setToolTipsVisible(true);
        for (const QString& id : ids) {
            if (id.isEmpty())
                m->addSeparator();
            else
                m->addAction(m_commands.action(id));
        }
        return m;
    };
    menu(tr("&File"),
         {"file.sample", "", "capture.new", "file.openSession", "file.openPlan", "file.import", "file.open", "",
          "figure.export", "plan.export", "", "file.close", "file.quit"});
    menu(tr("&Edit"), {"edit.undo", "edit.redo", "", "edit.goTo", "edit.find", "edit.palette", "",
                       "table.copy", "figure.copy"});
    QMenu* view = menu(tr("&View"), {"map.fit",
                                     "map.centre",
                                     "map.zoomIn",
                                     "map.zoomOut",
                                     "",
                                     "map.log",
                                     "map.colours",
                                     "map.pool",
                                     "map.lost",
                                     "",
                                     "head.previous",
                                     "head.next",
                                     "head.layerUp",
                                     "head.layerDown",
                                     "query.previous",
                                     "query.next",
                                     "decode.previous",
                                     "decode.next",
                                     "select.clear",
                                     "text.fold"});
    view->addSeparator();
    QMenu* panels = view->addMenu(tr("Panels"));
    panels->setObjectName(QStringLiteral("menuPanels"));
    QMenu* themes = view->addMenu(tr("Theme"));
    themes->setObjectName(QStringLiteral("menuTheme"));
    for (const char* name : {"dark", "light", "high-contrast", "system"})
        themes->addAction(m_commands.action(QStringLiteral("view.theme.") + QLatin1String(name)));
    menu(tr("&Capture"), {"capture.new", "capture.resume", "capture.cancel", "capture.nextTokens", "", "device.choose"});
    QStringList masks;
    for (const Method& m : methods())
        masks << QStringLiteral("mask.add.") +
                     QString::fromUtf8(m.id.data(), qsizetype(m.id.size()));
    masks << QString() << QStringLiteral("mask.remove") << QStringLiteral("map.lost") << QString()
          << QStringLiteral("mask.toggle1") << QStringLiteral("mask.toggle2")
          << QStringLiteral("mask.toggle3") << QStringLiteral("mask.toggle4")
          << QStringLiteral("mask.toggle5") << QString() << QStringLiteral("run.kernel");
    menu(tr("&Masks"), masks);
    menu(tr("&Plan"), {"plan.make", "plan.judge", "file.openPlan", "plan.export"});
    QMenu* window =
        menu(tr("&Window"), {"view.layoutOverview", "view.layoutInspect", "view.layoutCompare",
                             "view.layoutPlan", "view.resetLayout", "", "view.fullMap", ""});
    for (QDockWidget* dock : m_docks) {
        window->addAction(dock->toggleViewAction());
        panels->addAction(dock->toggleViewAction());
    }
    window->addSeparator();
    window->addAction(m_commands.action(QStringLiteral("jobs.cancelAll")));
    menu(tr("&Help"), {"help.tour", "help.keys", "edit.palette", "help.about"});
}

}  // namespace sparsight::ui
