#include <QAction>
#include <QCheckBox>
#include <QFile>
#include <QJsonObject>
#include <QLabel>
#include <QMainWindow>
#include <QPalette>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QTest>
#include <cmath>

#include "ui/document.h"
#include "ui/engine.h"
#include "ui/shell/capture_dialog.h"
#include "ui/shell/capture_job.h"
#include "ui/shell/command.h"
#include "ui/shell/command_palette.h"
#include "ui/shell/theme.h"

using namespace sparsight;
using namespace sparsight::ui;

namespace {

/// WCAG relative luminance.
double luminance(const QColor& c) {
    const auto linear = [](double v) {
        return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4);
    };
    return 0.2126 * linear(c.redF()) + 0.7152 * linear(c.greenF()) + 0.0722 * linear(c.blueF());
}

double contrast(const QColor& a, const QColor& b) {
    const double x = luminance(a), y = luminance(b);
    return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

}  // namespace

class TestShell : public QObject {
    Q_OBJECT

private slots:
    // --- chat prompts ---
    void aChatIsWrittenByTheModelsTemplate() {
        QTemporaryDir model;
        const QString bundled = QStringLiteral(SPARSIGHT_SOURCE_DIR "/resources/models/bookworm/");
        for (const char* name : {"config.json", "tokenizer.json"})
            QVERIFY(
                QFile::copy(bundled + QLatin1String(name), model.filePath(QLatin1String(name))));
        CaptureOrder order;
        order.model = model.path();
        order.text = QStringLiteral("Call me Ishmael.");
        order.chat = true;
        QVERIFY_EXCEPTION_THROWN(makeRequest(order), Error);  // the model has no template
        QFile file(model.filePath(QStringLiteral("chat_template.jinja")));
        QVERIFY(file.open(QIODevice::WriteOnly));
        file.write("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}you:");
        file.close();
        QCOMPARE(makeRequest(order).promptText, std::string("user: Call me Ishmael.\nyou:"));
        order.text = QStringLiteral(R"([{"role": "system", "content": "Be brief."}])");
        const auto request = makeRequest(order);
        QCOMPARE(request.promptText, std::string("system: Be brief.\nyou:"));
        QVERIFY(!request.tokenIds.empty() && request.tokenIds.front() != 0);  // no <bos> in front
    }

    // --- engine ---
    // --- the model's facts, before anything is loaded ---
    void theCaptureDialogShowsTheFactSheet() {
        const QTemporaryDir sessions;
        Engine engine;
        CaptureDialog dialog(&engine, sessions.path(), 1);
        const auto* facts = dialog.findChild<QLabel*>(QStringLiteral("captureModelFacts"));
        QVERIFY(facts);
        dialog.setModel(QStringLiteral(SPARSIGHT_TEST_DATA "/parity/gpt_oss"));
        QTRY_VERIFY(facts->text().contains(QLatin1String("gpt-oss 20b")));
        for (const char* part : {"1 with a window of 16 keys", "4 experts (2 per token)",
                                 "learned sinks", "RoPE yarn", "154,064"})
            QVERIFY2(facts->text().contains(QLatin1String(part)), qPrintable(facts->text()));
        dialog.setModel(QStringLiteral("/nonexistent"));
        QTRY_VERIFY(facts->text().isEmpty());
    }

    void theCaptureDialogAsksForTopKeysAndSaysWhatTheyCost() {
        const QTemporaryDir sessions;
        Engine engine;
        CaptureDialog dialog(&engine, sessions.path(), 1);
        auto* box = dialog.findChild<QCheckBox*>(QStringLiteral("captureTopKeys"));
        const auto* estimate = dialog.findChild<QLabel*>(QStringLiteral("captureEstimate"));
        QVERIFY(box && !box->isChecked());
        QVERIFY(!dialog.order().topKeys);
        QTRY_VERIFY_WITH_TIMEOUT(estimate->text().contains(QLatin1String("on disk")), 20000);
        QVERIFY(!estimate->text().contains(QLatin1String("top keys")));
        box->click();
        QVERIFY(dialog.order().topKeys);
        QVERIFY(makeRequest(dialog.order()).options.topKeys);
        QTRY_VERIFY_WITH_TIMEOUT(estimate->text().contains(QLatin1String("The top keys are")),
                                 20000);
        QTRY_VERIFY(engine.idle());
    }

    void theNewestRequestOfATagWins() {
        Engine engine;
        QStringList got;
        std::atomic<int> started{0};
        for (int i = 0; i < 50; ++i)
            engine
                .run(Engine::Quick, QStringLiteral("slider"),
                     [i, &started](const Job& job) {
                         ++started;
                         for (int k = 0; k < 20; ++k) {
                             job.check();
                             QTest::qSleep(1);
                         }
                         return i;
                     })
                .then(&engine, [&got](int value) { got << QString::number(value); });
        QVERIFY(!engine.idle());
        QTRY_VERIFY(engine.idle());
        QCoreApplication::processEvents();
        QCOMPARE(got, QStringList{QStringLiteral("49")});
        QVERIFY(started < 50);  // most were replaced before they ran
    }

    void aStopTakesEffectWithinHalfASecond() {
        Engine engine;
        bool cancelled = false, delivered = false;
        engine
            .run(Engine::Long, QStringLiteral("work"),
                 [](const Job& job) {
                     for (;;) {
                         job.step(0.5);
                         QTest::qSleep(5);
                     }
                     return 1;
                 })
            .then(&engine, [&delivered](int) { delivered = true; })
            .onCanceled(&engine, [&cancelled] { cancelled = true; });
        QTest::qWait(30);
        QElapsedTimer clock;
        clock.start();
        engine.stop(QStringLiteral("work"));
        QTRY_VERIFY_WITH_TIMEOUT(cancelled, 500);
        QVERIFY(clock.elapsed() < 500);
        QVERIFY(!delivered);
    }

    void anErrorArrivesWithItsSentenceAndTheLanesAreApart() {
        Engine engine;
        QString sentence;
        QSignalSpy ended(&engine, &Engine::ended);
        std::atomic<bool> release{false};
        engine.run(Engine::Long, QStringLiteral("slow"), [&release](const Job&) {
            while (!release) QTest::qSleep(1);
        });
        engine
            .run(Engine::Quick, QStringLiteral("bad"),
                 [](const Job&) -> int { throw Error(Errc::Usage, "the prompt is empty"); })
            .then(&engine, [](int) {})
            .onFailed(&engine,
                      [&sentence](const Error& e) { sentence = QString::fromUtf8(e.what()); });
        QTRY_COMPARE(sentence,
                     QStringLiteral("the prompt is empty"));  // although the long lane is busy
        release = true;
        QTRY_VERIFY(engine.idle());
        QCOMPARE(ended.count(), 2);
    }

    // --- commands ---
    void commandsSayWhyTheyCannotRun() {
        QMainWindow window;
        Commands commands(&window);
        QSignalSpy failed(&commands, &Commands::failed);
        int runs = 0;
        QString reason = QStringLiteral("Open a session first.");
        commands.add({"map.fit",
                      "Fit the map",
                      {},
                      [&runs](const QJsonObject&) { ++runs; },
                      [&reason] { return reason; },
                      {},
                      {}});
        QVERIFY(commands.run(QStringLiteral("map.fit")).contains(reason));
        commands.refresh();
        QVERIFY(!commands.action(QStringLiteral("map.fit"))->isEnabled());
        reason.clear();
        QCOMPARE(commands.run(QStringLiteral("map.fit")), QString());
        QCOMPARE(runs, 1);
        QVERIFY(commands.run(QStringLiteral("map.fti")).contains(QLatin1String("map.fit")));
        QCOMPARE(failed.count(), 2);
        QCOMPARE(commands.recent(), QStringList{QStringLiteral("map.fit")});
    }

    void fuzzyMatchingPrefersWordStarts() {
        QVERIFY(fuzzyScore(QStringLiteral("fm"), QStringLiteral("Fit the map")) >
                fuzzyScore(QStringLiteral("fm"), QStringLiteral("a firm step")));
        QVERIFY(fuzzyScore(QStringLiteral("xyz"), QStringLiteral("Fit the map")) < 0);
        QVERIFY(fuzzyScore(QStringLiteral("theme li"), QStringLiteral("Theme: light")) > 0);
    }

    void placesAreUnderstood_data() {
        QTest::addColumn<QString>("typed");
        QTest::addColumn<qint64>("layer");
        QTest::addColumn<qint64>("head");
        QTest::addColumn<qint64>("query");
        QTest::addColumn<qint64>("key");
        const auto row = [](const char* typed, qint64 l, qint64 h, qint64 q, qint64 k) {
            QTest::newRow(typed) << QString::fromLatin1(typed) << l << h << q << k;
        };
        row("L2H3", 2, 3, -1, -1);
        row("l2 h1", 2, 1, -1, -1);
        row("token 2", 0, 0, 2, -1);
        row("q:3 k:1", 0, 0, 3, 1);
        row("\"key is\"", 0, 0, -1, 2);
        row("needle", 0, 0, 2, 1);
        row("retrieval", 1, 2, -1, -1);
        row("worst recall", 2, 0, -1, -1);
    }
    void placesAreUnderstood() {
        QFETCH(QString, typed);
        Document d;
        sessions::CaptureInfo c;
        c.config.layers = 3;
        c.config.heads = 4;
        c.layersDone = {0, 1, 2};
        c.promptText = "the pass key is 7";
        c.tokenIds = {1, 2, 3, 4};
        c.offsets = {{0, 3, 0, 3}, {3, 8, 3, 8}, {8, 12, 8, 12}, {12, 17, 12, 17}};
        NeedleTruth truth;
        truth.needle = {1, 2};
        truth.answer = {3, 4};
        c.truth = truth;
        d.openCapture(nullptr, c);
        HeadFacts best;
        best.layer = 1;
        best.head = 2;
        best.retrieval = 0.9;
        d.setHeadFacts({HeadFacts{}, best});
        MaskMetrics good, bad;
        good.recall = 0.9;
        bad.recall = 0.1;
        bad.layer = 2;
        d.setTableMetrics({good, bad});
        const auto places = destinations(d, typed);
        QVERIFY(!places.empty());
        QCOMPARE(places.front().blocked, QString());
        places.front().go();
        QTEST(qint64(d.layer()), "layer");
        QTEST(qint64(d.head()), "head");
        QTEST(qint64(d.query()), "query");
        QTEST(qint64(d.key()), "key");
    }

    // --- theme ---
    void textIsReadable() {
        for (const ThemeChoice choice :
             {ThemeChoice::Dark, ThemeChoice::Light, ThemeChoice::HighContrast}) {
            applyTheme(choice);
            const Theme& t = theme();
            for (const QColor& back : {t.window, t.panel, t.raised}) {
                QVERIFY2(contrast(t.text, back) >= 4.5, qPrintable(themeName(choice)));
                QVERIFY2(contrast(t.muted, back) >= 4.5, qPrintable(themeName(choice)));
            }
            QVERIFY2(contrast(t.onAccent, t.accent) >= 4.5, qPrintable(themeName(choice)));
            QVERIFY2(contrast(t.accent, t.panel) >= 3, qPrintable(themeName(choice)));
            QCOMPARE(QApplication::palette().color(QPalette::Window), t.panel);
        }
        QCOMPARE(thousands(1234567), QStringLiteral("1,234,567"));
    }
};

QTEST_MAIN(TestShell)
#include "test_shell.moc"
