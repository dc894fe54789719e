#include <QApplication>
#include <QCommandLineParser>
#include <QDir>
#include <QIcon>
#include <QSettings>
#include <cstdio>

#include "core/model/blas_env.h"
#include "sessions/session.h"
#include "ui/shell/main_window.h"
#include "ui/shell/script.h"
#include "ui/shell/theme.h"
#include "ui/shell/ui_log.h"

namespace {

constexpr int kUsage = 2, kBadInput = 3, kNoDisplay = 6;

bool hasOption(int argc, char** argv, std::string_view name) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view a = argv[i];
        if (a == name ||
            (a.substr(0, name.size()) == name && a.size() > name.size() && a[name.size()] == '='))
            return true;
    }
    return false;
}

std::string valueOf(int argc, char** argv, std::string_view name) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view a = argv[i];
        if (a == name && i + 1 < argc) return argv[i + 1];
        if (a.substr(0, name.size()) == name && a.size() > name.size() && a[name.size()] == '=')
            return std::string(a.substr(name.size() + 1));
    }
    return {};
}

int fail(int status, const QString& sentence) {
    std::fprintf(stderr, "sparsight-gui: %s\n", qPrintable(sentence));
    return status;
}

/// What must be known before QApplication is made: the display and the scale.
/// @return false when there is no display to show a window on
bool prepareDisplay(int argc, char** argv) {
    const std::string scale = valueOf(argc, argv, "--scale");
    if (!scale.empty()) qputenv("QT_SCALE_FACTOR", QByteArray::fromStdString(scale));
    if (qEnvironmentVariableIsSet("QT_QPA_PLATFORM") || hasOption(argc, argv, "-platform"))
        return true;
    if (qEnvironmentVariableIsSet("DISPLAY") || qEnvironmentVariableIsSet("WAYLAND_DISPLAY"))
        return true;
    for (const char* option : {"--screenshot", "--ui-script", "--help", "-h", "--version", "-v"})
        if (hasOption(argc, argv, option)) {
            qputenv("QT_QPA_PLATFORM", "offscreen");
            return true;
        }
    return false;
}

}  // namespace

int main(int argc, char** argv) {
    using namespace sparsight;
    prepareBlas(argc, argv);
    if (const auto status = sessions::runSessionHelper(argc, argv)) return *status;
    if (!prepareDisplay(argc, argv))
        return fail(kNoDisplay,
                    QStringLiteral("there is no display (DISPLAY and WAYLAND_DISPLAY are empty): "
                                   "start it on a desktop, with ssh -X, or "
                                   "with --screenshot FILE to draw the window without one."));
    Q_INIT_RESOURCE(sparsight);
    QApplication app(argc, argv);
    QApplication::setApplicationName(QStringLiteral("sparsight"));
    QApplication::setApplicationVersion(QStringLiteral(SPARSIGHT_VERSION));
    QApplication::setWindowIcon(QIcon(QStringLiteral(":/icons/sparsight.svg")));

    QCommandLineParser parser;
    parser.setApplicationDescription(
        QStringLiteral("See where a transformer attends, and prove what may be skipped."));
    const QCommandLineOption help = parser.addHelpOption(), version = parser.addVersionOption();
    parser.addPositionalArgument(
        QStringLiteral("open"),
        QStringLiteral(
            "A session, a model directory, or any file that can be dropped on the window."));
    const QCommandLineOption geometry(QStringLiteral("geometry"),
                                      QStringLiteral("Size of the window."), QStringLiteral("WxH"));
    const QCommandLineOption scale(QStringLiteral("scale"), QStringLiteral("Scale of everything."),
                                   QStringLiteral("factor"));
    const QCommandLineOption settings(
        QStringLiteral("settings"),
        QStringLiteral("Directory for settings and sessions instead of the user's own."),
        QStringLiteral("dir"));
    const QCommandLineOption seed(
        QStringLiteral("seed"), QStringLiteral("Seed of generated prompts."), QStringLiteral("n"));
    const QCommandLineOption themeOption(QStringLiteral("theme"),
                                         QStringLiteral("dark, light, high-contrast or system."),
                                         QStringLiteral("name"));
    const QCommandLineOption script(QStringLiteral("ui-script"),
                                    QStringLiteral("JSON list of {id, args} commands to run."),
                                    QStringLiteral("file"));
    const QCommandLineOption log(QStringLiteral("ui-log"),
                                 QStringLiteral("Writes one JSON line per event."),
                                 QStringLiteral("file"));
    const QCommandLineOption screenshot(
        QStringLiteral("screenshot"),
        QStringLiteral("Writes the window as PNG when all is done, and ends."),
        QStringLiteral("file"));
    parser.addOptions({geometry, scale, settings, seed, themeOption, script, log, screenshot});
    if (!parser.parse(app.arguments()))
        return fail(kUsage, parser.errorText() + QStringLiteral(" (--help lists the options)"));
    if (parser.isSet(help)) parser.showHelp(0);
    if (parser.isSet(version)) parser.showVersion();
    if (parser.positionalArguments().size() > 1)
        return fail(kUsage,
                    QStringLiteral("only one session, model or file can be opened at a time."));

    ui::GuiOptions options;
    if (!parser.positionalArguments().isEmpty())
        options.open = parser.positionalArguments().front();
    if (parser.isSet(geometry)) {
        const QStringList parts = parser.value(geometry).split(QLatin1Char('x'));
        if (parts.size() == 2) options.geometry = QSize(parts[0].toInt(), parts[1].toInt());
        if (options.geometry.width() < 320 || options.geometry.height() < 240)
            return fail(kUsage, QStringLiteral(
                                    "--geometry wants WIDTHxHEIGHT of at least 320x240, not '%1'.")
                                    .arg(parser.value(geometry)));
    }
    if (parser.isSet(settings) && !QDir().mkpath(parser.value(settings)))
        return fail(kBadInput, QStringLiteral("the settings directory '%1' cannot be made.")
                                   .arg(parser.value(settings)));
    options.settings = parser.value(settings);
    options.theme = parser.value(themeOption);
    options.script = parser.value(script);
    options.log = parser.value(log);
    options.screenshot = parser.value(screenshot);
    if (parser.isSet(seed)) {
        bool isNumber = false;
        options.seed = parser.value(seed).toULongLong(&isNumber);
        if (!isNumber)
            return fail(kUsage, QStringLiteral("--seed wants a whole number, not '%1'.")
                                    .arg(parser.value(seed)));
    }
    if (!options.log.isEmpty() && !ui::openUiLog(options.log))
        return fail(kBadInput, QStringLiteral("the log '%1' cannot be written.").arg(options.log));
    if (options.test()) QApplication::setCursorFlashTime(0);

    try {
        const QString stored = ui::MainWindow::storedTheme(options);
        ui::applyTheme(ui::themeByName(options.theme.isEmpty() ? stored : options.theme));
        ui::MainWindow window(options);
        window.show();
        if (!options.open.isEmpty()) window.openPath(options.open);
        if (options.test()) {
            auto* runner = new ui::ScriptRunner(&window);
            if (!options.script.isEmpty()) runner->load(options.script);
            runner->setScreenshot(options.screenshot);
            // A script without a picture leaves the window open for whoever drives it on.
            const bool quits = !options.screenshot.isEmpty();
            QObject::connect(runner, &ui::ScriptRunner::finished, &window,
                             [&window, quits](int status) {
                                 if (!quits) return;
                                 window.close();
                                 QApplication::exit(status);
                             });
            runner->start();
        }
        return QApplication::exec();
    } catch (const std::exception& e) {
        return fail(kBadInput, QString::fromUtf8(e.what()));
    }
}
