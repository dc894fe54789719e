// The program as a user meets it: started offscreen with a script, judged by its log and its
// pixels.
#include <QDir>
#include <QDirIterator>
#include <QFile>
#include <QImage>
#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <QProcess>
#include <QRect>
#include <QSet>
#include <QTemporaryDir>
#include <QTest>
#include <algorithm>
#include <cmath>

#include "sessions/session.h"

using namespace sparsight;

namespace {

struct Run {
    int status = -1;
    QString errors;
    std::vector<QJsonObject> log;
    QImage picture;

    std::vector<QJsonObject> of(const char* event) const {
        std::vector<QJsonObject> found;
        for (const QJsonObject& o : log)
            if (o.value(QStringLiteral("event")).toString() == QLatin1String(event))
                found.push_back(o);
        return found;
    }
    QString failure() const {
        QString text = errors;
        for (const QJsonObject& o : of("error"))
            text += o.value(QStringLiteral("sentence")).toString() + QLatin1Char('\n');
        for (const QJsonObject& o : of("command"))
            if (o.contains(QStringLiteral("error")))
                text += o.value(QStringLiteral("error")).toString() + QLatin1Char('\n');
        return QStringLiteral("status %1\n").arg(status) + text;
    }
};

QJsonObject command(const char* id, const QJsonObject& args = {}) {
    return {{QStringLiteral("id"), QLatin1String(id)}, {QStringLiteral("args"), args}};
}

double distance(QRgb a, QRgb b) {
    return std::abs(qRed(a) - qRed(b)) + std::abs(qGreen(a) - qGreen(b)) +
           std::abs(qBlue(a) - qBlue(b));
}

/// Share of the pixels that differ visibly.
double difference(const QImage& a, const QImage& b) {
    if (a.size() != b.size()) return 1;
    qint64 count = 0;
    for (int y = 0; y < a.height(); ++y)
        for (int x = 0; x < a.width(); ++x) count += distance(a.pixel(x, y), b.pixel(x, y)) > 12;
    return double(count) / (double(a.width()) * a.height());
}

}  // namespace

class TestGui : public QObject {
    Q_OBJECT

    QTemporaryDir m_dir;
    QString m_session;

    QString path(const QString& name) const { return m_dir.filePath(name); }

    Run run(const QString& name, const QStringList& arguments, const QJsonArray& script,
            bool picture = true) {
        const QString scriptFile = path(name + QStringLiteral(".json")),
                      log = path(name + QStringLiteral(".log")),
                      png = path(name + QStringLiteral(".png"));
        QFile file(scriptFile);
        if (!file.open(QIODevice::WriteOnly)) return {};
        file.write(QJsonDocument(script).toJson());
        file.close();
        QStringList all = arguments;
        if (!arguments.contains(QStringLiteral("--settings")))
            all << QStringLiteral("--settings") << path(QStringLiteral("settings"));
        if (!arguments.contains(QStringLiteral("--geometry")))
            all << QStringLiteral("--geometry") << QStringLiteral("1600x1000");
        all << QStringLiteral("--scale") << QStringLiteral("1") << QStringLiteral("--ui-script")
            << scriptFile << QStringLiteral("--ui-log") << log;
        if (picture) all << QStringLiteral("--screenshot") << png;
        QProcess process;
        QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
        environment.insert(QStringLiteral("QT_QPA_PLATFORM"), QStringLiteral("offscreen"));
        process.setProcessEnvironment(environment);
        process.start(QStringLiteral(SPARSIGHT_GUI), all);
        Run result;
        if (!process.waitForFinished(300000))
            process.kill();
        else
            result.status = process.exitStatus() == QProcess::NormalExit ? process.exitCode() : -2;
        result.errors = QString::fromUtf8(process.readAllStandardError());
        QFile lines(log);
        if (lines.open(QIODevice::ReadOnly))
            for (const QByteArray& line : lines.readAll().split('\n'))
                if (!line.isEmpty()) result.log.push_back(QJsonDocument::fromJson(line).object());
        if (picture) result.picture = QImage(png);
        return result;
    }

private slots:
    void initTestCase() {
        QVERIFY(m_dir.isValid());
        m_session = path(QStringLiteral("settings/bookworm-sample.sparsight"));
        // "See it now" from an empty start: the bundled model reads the needle prompt.
        const Run r =
            run(QStringLiteral("sample"), {QStringLiteral("--theme"), QStringLiteral("dark")},
                {command("file.sample"), command("state")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        QCOMPARE(r.of("opened").size(), std::size_t(1));
        QVERIFY(QDir(m_session).exists());
        const QJsonObject state = r.of("state").front();
        QCOMPARE(state.value(QStringLiteral("layer")).toInt(), 6);
        QCOMPARE(state.value(QStringLiteral("head")).toInt(), 5);
        QCOMPARE(state.value(QStringLiteral("title")).toString(),
                 QStringLiteral("Sparsight — bookworm-sample — L6 H5 — Inspect"));
        QCOMPARE(state.value(QStringLiteral("facts")).toInt(), 64);
        QCOMPARE(state.value(QStringLiteral("table")).toInt(), 64);
        qInfo("sample: captured in %.2f s, opened at %.0f ms",
              r.of("captured").front().value(QStringLiteral("seconds")).toDouble(),
              r.of("opened").front().value(QStringLiteral("ms")).toDouble());
    }

    void everythingOnScreenHasANameAndCanBePlaced() {
        const Run r =
            run(QStringLiteral("widgets"), {m_session},
                {command("dump-widgets"), command("view.layoutPlan"), command("dump-widgets"),
                 command("view.layoutOverview"), command("dump-widgets")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        const auto widgets = r.of("widget");
        QVERIFY(widgets.size() > 30);
        QStringList nameless;
        for (const QJsonObject& w : widgets)
            if (w.value(QStringLiteral("name")).toString().isEmpty() ||
                w.value(QStringLiteral("accessibleName")).toString().isEmpty())
                nameless << QString::fromUtf8(QJsonDocument(w).toJson(QJsonDocument::Compact));
        QVERIFY2(nameless.isEmpty(), qPrintable(nameless.join(QLatin1Char('\n'))));
        for (const char* name : {"mapView", "toolRun", "goToField", "maskPanel"}) {
            const bool found =
                std::any_of(widgets.begin(), widgets.end(), [name](const QJsonObject& w) {
                    return w.value(QStringLiteral("name")).toString() == QLatin1String(name);
                });
            if (QLatin1String(name) != QLatin1String("maskPanel")) QVERIFY2(found, name);
        }
    }

    void aSmallWindowCutsNoTabAndHidesNoChip() {
        const Run r = run(QStringLiteral("small"),
                          {m_session, QStringLiteral("--geometry"), QStringLiteral("1280x720")},
                          {command("dump-widgets")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        QCOMPARE(r.picture.size(), QSize(1280, 720));
        QStringList names;
        for (const QJsonObject& w : r.of("widget"))
            names << w.value(QStringLiteral("name")).toString();
        QVERIFY(names.contains(QStringLiteral("dockTabs1")));
        QVERIFY(names.contains(QStringLiteral("toolRun")));
        for (const char* cut : {"ScrollLeftButton", "ScrollRightButton"})
            QVERIFY2(!names.contains(QLatin1String(cut)), cut);
    }

    void themesPaintTheirColours() {
        for (const auto& [name, panel] : {std::pair("dark", qRgb(0x1d, 0x20, 0x26)),
                                          std::pair("light", qRgb(0xff, 0xff, 0xff))}) {
            const Run r = run(QStringLiteral("theme-") + QLatin1String(name),
                              {m_session, QStringLiteral("--theme"), QLatin1String(name)},
                              {command("view.layoutInspect")});
            QVERIFY2(r.status == 0, qPrintable(r.failure()));
            QCOMPARE(r.picture.size(), QSize(1600, 1000));
            QCOMPARE(r.picture.pixel(1590, 990), panel);  // the status bar's corner
            // The map: the middle holds many colours, magma's bright end among them.
            QSet<QRgb> colours;
            int bright = 0;
            for (int y = 100; y < 700; y += 2)
                for (int x = 340; x < 1000; x += 2) {
                    const QRgb c = r.picture.pixel(x, y);
                    colours.insert(c);
                    bright += qRed(c) > 220 && qGreen(c) > 110 && qBlue(c) < 200;
                }
            QVERIFY2(colours.size() > 200, qPrintable(QString::number(colours.size())));
            QVERIFY(bright > 50);
        }
    }

    void selectionsReachTheLogAndTheMap() {
        const Run r = run(QStringLiteral("select"), {m_session},
                          {command("edit.goTo", {{"text", "L3H2"}}),
                           command("edit.goTo", {{"text", "q:900 k:40"}}), command("state"),
                           command("head.next"), command("head.layerUp"), command("state"),
                           QJsonObject{{"id", "edit.goTo"},
                                       {"args", QJsonObject{{"text", "L99H0"}}},
                                       {"mayFail", true}}});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        const auto states = r.of("state");
        QCOMPARE(states[0].value(QStringLiteral("layer")).toInt(), 3);
        QCOMPARE(states[0].value(QStringLiteral("query")).toInt(), 900);
        QCOMPARE(states[0].value(QStringLiteral("key")).toInt(), 40);
        QCOMPARE(states[1].value(QStringLiteral("layer")).toInt(), 2);
        QCOMPARE(states[1].value(QStringLiteral("head")).toInt(), 3);
        QVERIFY(!r.of("selection").empty());
        QVERIFY(r.of("error")
                    .back()
                    .value(QStringLiteral("sentence"))
                    .toString()
                    .contains(QLatin1String("layers 0 to 7")));
    }

    void aMaskThatKeepsAllHasRecallOneAndOneThatKeepsLittleLoses() {
        const Run r = run(
            QStringLiteral("masks"), {m_session},
            {command("head.select", {{"layer", 6}, {"head", 5}}),
             command("mask.set",
                     {{"layers", QJsonArray{"dense", "a-shape:sink=4,window=64"}}, {"active", 1}}),
             command("state"), command("mask.edit", {{"spec", "a-shape:sink=4,window=512"}}),
             command("state"), command("edit.undo"), command("state")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        const auto states = r.of("state");
        const auto mask = [&](std::size_t state, int index) {
            return states[state].value(QStringLiteral("masks")).toArray()[index].toObject();
        };
        QVERIFY(std::abs(mask(0, 0).value(QStringLiteral("recall")).toDouble() - 1) < 1e-4);
        QVERIFY(mask(0, 0).value(QStringLiteral("outputError")).toDouble() < 1e-3);
        const double small = mask(0, 1).value(QStringLiteral("recall")).toDouble(),
                     large = mask(1, 1).value(QStringLiteral("recall")).toDouble();
        QVERIFY(small > 0 && small < large && large < 1);
        QVERIFY(mask(0, 1).value(QStringLiteral("density")).toDouble() <
                mask(1, 1).value(QStringLiteral("density")).toDouble());
        QVERIFY(mask(0, 1).value(QStringLiteral("outputError")).toDouble() > 0);
        QCOMPARE(mask(2, 1).value(QStringLiteral("spec")).toString(),
                 mask(0, 1).value(QStringLiteral("spec")).toString());
        QCOMPARE(mask(2, 1).value(QStringLiteral("recall")).toDouble(), small);
    }

    void theWindowComesBackAsItWas() {
        const QString settings = path(QStringLiteral("settings-restart"));
        const QStringList arguments{m_session, QStringLiteral("--settings"), settings,
                                    QStringLiteral("--theme"), QStringLiteral("light")};
        const Run first =
            run(QStringLiteral("restart1"), arguments,
                {command("view.layoutCompare"), command("map.colours", {{"name", "viridis"}}),
                 command("head.select", {{"layer", 4}, {"head", 1}})});
        const Run second = run(QStringLiteral("restart2"), arguments, {});
        QVERIFY2(first.status == 0 && second.status == 0,
                 qPrintable(first.failure() + second.failure()));
        const double changed = difference(first.picture, second.picture);
        QVERIFY2(changed < 0.005, qPrintable(QString::number(changed)));
        // The test can fail: another head is another picture.
        const Run third = run(QStringLiteral("restart3"), arguments,
                              {command("head.select", {{"layer", 0}, {"head", 0}})});
        QVERIFY(difference(second.picture, third.picture) > 0.005);
    }

    void aCancelledCaptureStopsSoonAndCanBeResumed() {
        const QString out = path(QStringLiteral("long.sparsight"));
        const Run r = run(QStringLiteral("cancel"), {},
                          {command("capture.run", {{"model", "bookworm"},
                                                   {"probe", "niah:tokens=600,seed=3"},
                                                   {"layers", "0,1"},
                                                   {"out", out}}),
                           command("state")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        QCOMPARE(r.of("captured").size(), std::size_t(1));
        QVERIFY(r.of("state")
                    .front()
                    .value(QStringLiteral("title"))
                    .toString()
                    .contains(QLatin1String("long")));
        QCOMPARE(r.of("state").front().value(QStringLiteral("facts")).toInt(), 16);
    }

    void wrongFilesGiveOneSentence_data() {
        QTest::addColumn<QString>("file");
        QTest::addColumn<QByteArray>("content");
        QTest::addColumn<QString>("says");
        QTest::newRow("type") << "notes.pptx" << QByteArray("x") << "does not open yet";
        QTest::newRow("damaged session")
            << "bad.sparsight/session.db" << QByteArray("not a database") << "bad.sparsight";
        QTest::newRow("plan before a session")
            << "plan.json" << QByteArray("{}") << "Open a session first";
        QTest::newRow("missing") << "" << QByteArray() << "nowhere";
    }
    void wrongFilesGiveOneSentence() {
        QFETCH(QString, file);
        QFETCH(QByteArray, content);
        QFETCH(QString, says);
        QString open = path(file.isEmpty() ? QStringLiteral("nowhere") : file);
        if (!file.isEmpty()) {
            QDir().mkpath(QFileInfo(open).path());
            QFile f(open);
            QVERIFY(f.open(QIODevice::WriteOnly));
            f.write(content);
        }
        const Run r = run(QStringLiteral("wrong"), {open}, {});
        QCOMPARE(r.of("error").size(), std::size_t(1));
        const QString sentence = r.of("error").front().value(QStringLiteral("sentence")).toString();
        QVERIFY2(sentence.contains(says), qPrintable(sentence));
        QVERIFY2(!sentence.contains(QLatin1Char('\n')), qPrintable(sentence));
        QCOMPARE(r.status, 0);
    }

    void unreadTextIsFolded() {
        const Run r = run(QStringLiteral("fold"), {m_session},
                          {command("edit.goTo", {{"text", "retrieval"}}),
                           command("edit.goTo", {{"text", "needle"}}),
                           command("text.unfold", {{"token", 900}}), command("text.fold")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        // The log's order is the script's: folded, one stretch opened, all shown.
        std::vector<int> hidden;
        for (const QJsonObject& o : r.of("layout")) hidden.push_back(o.value("hidden").toInt());
        QVERIFY(hidden.size() >= 3);
        const int folded = *std::max_element(hidden.begin(), hidden.end());
        QVERIFY2(folded > 1000, qPrintable(QString::number(folded)));
        QCOMPARE(hidden.back(), 0);
        QVERIFY(
            std::any_of(hidden.begin(), hidden.end(), [&](int h) { return h > 0 && h < folded; }));
    }

    void aDamagedSessionSaysSoWhereItsNumbersWouldStand() {
        const QString damaged = path(QStringLiteral("damaged.sparsight"));
        QCOMPARE(
            QProcess::execute(QStringLiteral("cp"), {QStringLiteral("-r"), m_session, damaged}), 0);
        QDirIterator files(damaged, {QStringLiteral("*qkv*")}, QDir::Files,
                           QDirIterator::Subdirectories);
        int spoilt = 0;
        while (files.hasNext()) {
            QFile file(files.next());
            QVERIFY(file.open(QIODevice::ReadWrite));
            file.seek(file.size() / 2);
            file.write("xx", 2);
            ++spoilt;
        }
        QVERIFY(spoilt >= 8);
        const Run r = run(
            QStringLiteral("damaged"), {damaged},
            {command("head.select", {{"layer", 6}, {"head", 5}}),
             command("select.token", {{"query", 700}}), command("map.zoomIn"), command("state")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        QStringList places;
        for (const QJsonObject& o : r.of("banner")) {
            places << o.value(QStringLiteral("where")).toString();
            QVERIFY(!o.value(QStringLiteral("sentence")).toString().isEmpty());
        }
        for (const char* place : {"mapNotice", "tokenBanner"})
            QVERIFY2(places.contains(QLatin1String(place)), qPrintable(places.join(u' ')));
        // No number of another state passes for one of this.
        for (const QJsonValue& mask :
             r.of("state").front().value(QStringLiteral("masks")).toArray())
            QVERIFY(!mask.toObject().contains(QStringLiteral("recall")));
    }

    void aSmallWindowShowsAllThatMatters() {
        const Run r = run(
            QStringLiteral("small"),
            {m_session, QStringLiteral("--geometry"), QStringLiteral("1280x720"),
             QStringLiteral("--settings"), path(QStringLiteral("settings-small"))},
            {command("mask.set", {{"layers", QJsonArray{"a-shape", "vertical-slash", "antidiagonal",
                                                        "retrieval-heads", "oracle-blocks"}},
                                  {"active", 1}}),
             command("view.layoutCompare"), command("view.layoutInspect"),
             command("dump-widgets")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        QHash<QString, QRect> at;
        int tabs = 0;
        for (const QJsonObject& w : r.of("widget")) {
            const QJsonArray b = w.value(QStringLiteral("rect")).toArray();
            at.insert(w.value(QStringLiteral("name")).toString(),
                      QRect(b[0].toInt(), b[1].toInt(), b[2].toInt(), b[3].toInt()));
            tabs += w.value(QStringLiteral("class")).toString() == QLatin1String("QTabBar");
        }
        QCOMPARE(tabs, 2);  // head facts | row recall, and curve | this machine: none left over
        // Four rows and their head; every parameter of the method with the most, unscrolled.
        QVERIFY2(at[QStringLiteral("metricsTable")].height() >= 5 * 22,
                 qPrintable(QString::number(at[QStringLiteral("metricsTable")].height())));
        QVERIFY(at.contains(QStringLiteral("slider_block")));
        QVERIFY(at[QStringLiteral("slider_block")].bottom() <
                at[QStringLiteral("curveChart")].top());
        QVERIFY(at[QStringLiteral("mapView")].width() > 600 &&
                at[QStringLiteral("mapView")].height() > 400);
    }

    void theMapAloneIsNotWhatIsRemembered() {
        const QStringList arguments{m_session, QStringLiteral("--settings"),
                                    path(QStringLiteral("settings-alone"))};
        const Run first = run(QStringLiteral("alone1"), arguments,
                              {command("view.fullMap"), command("dump-widgets")});
        const Run second = run(QStringLiteral("alone2"), arguments, {command("dump-widgets")});
        const Run third =
            run(QStringLiteral("alone3"), arguments,
                {command("view.fullMap"), command("select.clear"), command("dump-widgets")});
        QVERIFY2(first.status == 0 && second.status == 0 && third.status == 0,
                 qPrintable(first.failure() + second.failure() + third.failure()));
        const auto shown = [](const Run& r) {
            const auto widgets = r.of("widget");
            return std::any_of(widgets.begin(), widgets.end(), [](const QJsonObject& w) {
                return w.value(QStringLiteral("name")).toString() == QLatin1String("metricsTable");
            });
        };
        QVERIFY(!shown(first));
        QVERIFY(shown(second));
        QVERIFY(shown(third));
    }

    void figuresAndPlansAreWritten() {
        const QString figure = path(QStringLiteral("figure.svg")),
                      plan = path(QStringLiteral("plan.json")),
                      mi = path(QStringLiteral("minference.json"));
        const Run r = run(
            QStringLiteral("export"), {m_session},
            {command("head.select", {{"layer", 6}, {"head", 5}}),
             command("figure.export", {{"file", figure}}),
             command("plan.uniform", {{"method", "retrieval-heads:heads=6.5,sink=4,window=256"}}),
             command("plan.export", {{"file", plan}}),
             command("plan.export", {{"file", mi}, {"to", "minference"}, {"allowLoss", true}})});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        for (const QString& file : {figure, plan, mi})
            QVERIFY2(QFileInfo(file).size() > 200, qPrintable(file));
    }

    void theTourTellsItsStory() {
        QJsonArray script;
        for (int step = 1; step <= 5; ++step) script.append(command("tour.step", {{"step", step}}));
        const Run r = run(QStringLiteral("tour"), {}, script);
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        const auto steps = r.of("tour");
        QCOMPARE(steps.size(), std::size_t(5));
        const auto says = [&](std::size_t i, const char* text) {
            return steps[i]
                .value(QStringLiteral("result"))
                .toString()
                .contains(QLatin1String(text));
        };
        QVERIFY2(says(0, "L6 H5"), qPrintable(steps[0].value(QStringLiteral("result")).toString()));
        QVERIFY2(says(1, "4 of 4"),
                 qPrintable(steps[1].value(QStringLiteral("result")).toString()));
        QVERIFY2(says(2, "0 of 4"),
                 qPrintable(steps[2].value(QStringLiteral("result")).toString()));
        QVERIFY2(says(3, "4 of 4"),
                 qPrintable(steps[3].value(QStringLiteral("result")).toString()));
        QVERIFY2(says(4, "64 of 64") && says(4, "4 of 4"),
                 qPrintable(steps[4].value(QStringLiteral("result")).toString()));
    }

    void everyPanIsPainted() {
        QJsonArray script{command("head.select", {{"layer", 6}, {"head", 5}}),
                          command("map.zoomIn"), command("map.zoomIn")};
        for (int i = 0; i < 30; ++i)
            script.append(command("map.pan", {{"rows", i % 2 ? 0.05 : -0.05}, {"columns", 0.03}}));
        const Run r = run(QStringLiteral("pan"), {m_session}, script);
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        std::vector<double> times;
        for (const QJsonObject& o : r.of("paint"))
            times.push_back(o.value(QStringLiteral("took")).toDouble());
        QVERIFY(times.size() >=
                30);  // how long they took depends on the machine: shown, not judged
        std::sort(times.begin(), times.end());
        const double p95 = times[times.size() * 95 / 100];
        qInfo("map paints: %zu, p95 %.2f ms, worst %.2f ms", times.size(), p95, times.back());
    }

    void generatedTokensHaveRowsThatTheStepsSelect() {
        const QString out = path(QStringLiteral("decode.sparsight"));
        const Run r =
            run(QStringLiteral("decode"), {},
                {command("capture.run", {{"model", "bookworm"},
                                         {"text", "The old man looked at the sea for a long time"},
                                         {"decode", 6},
                                         {"steps", "1,4"},
                                         {"out", out}}),
                 command("state"), command("decode.previous"), command("decode.previous"),
                 command("state"), command("decode.next"), command("state")});
        QVERIFY2(r.status == 0, qPrintable(r.failure()));
        const auto captures =
            sessions::Session::open(out.toStdString(), sessions::OpenMode::ReadOnly)
                ->info()
                .captures;
        QCOMPARE(captures.size(), std::size_t(1));
        QCOMPARE(captures[0].generated(), Index(6));
        const auto states = r.of("state");
        QCOMPARE(states.size(), std::size_t(3));
        const auto query = [&](std::size_t i) {
            return Index(states[i].value(QStringLiteral("query")).toInteger());
        };
        QCOMPARE(query(0), captures[0].prefill + 5);  // the last row
        QCOMPARE(query(1), captures[0].prefill + 1);
        QCOMPARE(query(2), captures[0].prefill + 4);
    }

    void tensorsAreImportedThroughTheDialogAndPicklesRefused() {
        const QString data = QStringLiteral(SPARSIGHT_TEST_DATA "/import/");
        const Run r = run(
            QStringLiteral("import"), {},
            {command("file.open", {{"path", data + "tensors.pkl"}}),
             command("file.open", {{"path", data + "hook.safetensors"}}), command("dump-widgets")});
        const auto errors = r.of("error");
        QCOMPARE(errors.size(), std::size_t(1));
        QVERIFY(errors.front().value(QStringLiteral("sentence")).toString().contains("pickle"));
        bool dialog = false;
        for (const QJsonObject& w : r.of("widget"))
            dialog = dialog || w.value(QStringLiteral("name")) == QLatin1String("importStart");
        QVERIFY(dialog);
    }

    void withoutADisplayThereIsOneSentence() {
        QProcess process;
        QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
        for (const char* name : {"QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"})
            environment.remove(QLatin1String(name));
        process.setProcessEnvironment(environment);
        process.start(QStringLiteral(SPARSIGHT_GUI), {});
        QVERIFY(process.waitForFinished(30000));
        QCOMPARE(process.exitStatus(), QProcess::NormalExit);
        QCOMPARE(process.exitCode(), 6);
        const QByteArray text = process.readAllStandardError();
        QVERIFY(text.contains("no display"));
        QCOMPARE(text.count('\n'), 1);
    }
};

QTEST_GUILESS_MAIN(TestGui)
#include "test_gui.moc"
