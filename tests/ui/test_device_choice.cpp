// The choice of device, in the window itself.
#include <QAction>
#include <QJsonObject>
#include <QLabel>
#include <QMenu>
#include <QSettings>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QTest>
#include <QThread>
#include <QToolBar>
#include <atomic>

#include "core/model/device.h"
#include "ui/shell/banner.h"
#include "ui/shell/capture_dialog.h"
#include "ui/shell/main_window.h"

using namespace sparsight;
using namespace sparsight::ui;

class TestDevice : public QObject {
    Q_OBJECT

    static GuiOptions options(const QTemporaryDir& dir) {
        GuiOptions o;
        o.settings = dir.path();
        o.geometry = QSize(1600, 1000);
        return o;
    }
    static QMenu* menuOf(MainWindow& window) {
        QMenu* menu = nullptr;
        [&] {
            QTRY_VERIFY_WITH_TIMEOUT(
                (menu = window.findChild<QMenu*>(QStringLiteral("deviceMenu"))) &&
                    menu->isVisible(),
                20000);
        }();
        return menu;
    }
    static QAction* find(const QMenu* menu, const QString& name) {
        for (QAction* a : menu->actions())
            if (a->objectName() == name) return a;
        return nullptr;
    }

private slots:
    void theChipOpensTheListOfDevices() {
        const QTemporaryDir dir;
        MainWindow window(options(dir));
        window.show();
        // The bar comes with a session; Capture > Choose the device is there without one.
        window.findChild<QToolBar*>(QStringLiteral("toolBar"))->show();
        auto* chip = window.findChild<QLabel*>(QStringLiteral("chipDevice"));
        QVERIFY(chip);
        QTRY_VERIFY(chip->isVisible());
        QVERIFY2(chip->text().contains(QStringLiteral("CPU")), qPrintable(chip->text()));
        window.resize(1280, 720);
        QTRY_COMPARE(window.size(), QSize(1280, 720));
        QVERIFY2(chip->isVisible() && chip->text().contains(QStringLiteral("CPU")),
                 qPrintable(chip->text()));
        QTest::mouseClick(chip, Qt::LeftButton);
        QMenu* menu = menuOf(window);
        QVERIFY(menu);
        QAction* cpu = find(menu, QStringLiteral("device.cpu"));
        QVERIFY(cpu && cpu->isEnabled() && cpu->isChecked());
        QVERIFY2(cpu->text().contains(QStringLiteral("free")), qPrintable(cpu->text()));
        const DeviceList list = deviceList();
        const QAction* none = find(menu, QStringLiteral("device.none"));
        QCOMPARE(none != nullptr, !list.noGpu.empty());
        if (none) {
            QVERIFY(!none->isEnabled());
            QCOMPARE(none->text(),
                     QStringLiteral("no CUDA device: %1").arg(QString::fromStdString(list.noGpu)));
        }
        QCOMPARE(menu->actions().size(),
                 qsizetype(list.devices.size()) + !list.noGpu.empty() + !list.noModel.empty());

        const QSignalSpy changed(&window.engine(), &Engine::deviceChanged);
        cpu->trigger();
        QTRY_COMPARE(changed.size(), 1);
        menu->close();
        const QSettings settings(dir.filePath(QStringLiteral("sparsight.ini")),
                                 QSettings::IniFormat);
        QTRY_COMPARE(settings.value(QStringLiteral("device")).toString(), QStringLiteral("cpu"));
    }

    void aDeviceThatIsNotThereIsRefusedInOneSentence() {
        const QTemporaryDir dir;
        MainWindow window(options(dir));
        window.show();
        Engine& engine = window.engine();
        const QSignalSpy failed(&engine, &Engine::deviceFailed);
        const auto before = engine.backend(Engine::Long);
        window.commands().run(QStringLiteral("device.choose"),
                              {{QStringLiteral("device"), QStringLiteral("cuda:99")}});
        QTRY_COMPARE_WITH_TIMEOUT(failed.size(), 1, 20000);
        QVERIFY(failed[0][0].toString().endsWith(QLatin1Char('.')));
        QCOMPARE(engine.device(), QStringLiteral("cpu"));
        QCOMPARE(engine.backend(Engine::Long), before);
        QTRY_VERIFY(window.banner().isVisible());
        // What is no device at all never reaches the engine.
        QVERIFY(window.commands()
                    .run(QStringLiteral("device.choose"),
                         {{QStringLiteral("device"), QStringLiteral("gpu")}})
                    .contains(QStringLiteral("cpu, cuda or cuda:N")));
        QCOMPARE(failed.size(), 1);
    }

    void aRememberedDeviceThatIsGoneLeavesTheCpu() {
        const QTemporaryDir dir;
        {
            QSettings settings(dir.filePath(QStringLiteral("sparsight.ini")), QSettings::IniFormat);
            settings.setValue(QStringLiteral("device"), QStringLiteral("cuda:99"));
        }
        MainWindow window(options(dir));
        window.show();
        const QSignalSpy failed(&window.engine(), &Engine::deviceFailed);
        QTRY_COMPARE_WITH_TIMEOUT(failed.size(), 1, 20000);
        QCOMPARE(window.engine().device(), QStringLiteral("cpu"));
    }

    void theBackendsChangeBetweenJobs() {
        Engine engine;
        const auto quick = engine.backend(Engine::Quick), slow = engine.backend(Engine::Long);
        const QSignalSpy changed(&engine, &Engine::deviceChanged);
        std::atomic<bool> release{false};
        engine.run(Engine::Long, QStringLiteral("work"), [&](const Job&) {
            while (!release) QThread::msleep(1);
        });
        QVERIFY(engine.runs(QStringLiteral("work")));
        QVERIFY(!engine.runs(QStringLiteral("capture")));
        engine.useDevice(QStringLiteral("cpu"));
        QTest::qWait(50);
        QCOMPARE(changed.size(), 0);  // the job goes first
        QCOMPARE(engine.backend(Engine::Long), slow);
        release = true;
        QTRY_COMPARE(changed.size(), 1);
        QVERIFY(!engine.runs(QStringLiteral("work")));
        QTRY_VERIFY(engine.idle());
        QVERIFY(engine.backend(Engine::Long) != slow);
        QVERIFY(engine.backend(Engine::Quick) != quick);
        QVERIFY(engine.backend(Engine::Quick) != engine.backend(Engine::Long));
    }

    void theCaptureDialogAsksForTheEnginesDevice() {
        const QTemporaryDir dir;
        Engine engine;
        const CaptureDialog dialog(&engine, dir.path(), 1);
        QCOMPARE(dialog.order().device, QStringLiteral("cpu"));
    }
};

QTEST_MAIN(TestDevice)
#include "test_device_choice.moc"
