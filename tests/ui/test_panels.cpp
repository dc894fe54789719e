// The mask panel and the fields made from a method's parameters.
#include <QCheckBox>
#include <QLabel>
#include <QLineEdit>
#include <QSignalSpy>
#include <QSlider>
#include <QTableView>
#include <QTest>
#include <QTreeWidget>

#include "tests/sessions/synthetic.h"
#include "ui/document.h"
#include "ui/engine.h"
#include "ui/panels/mask_panel.h"
#include "ui/panels/metrics_table.h"
#include "ui/panels/param_editor.h"
#include "ui/panels/top_keys_list.h"
#include "ui/shell/theme.h"

using namespace sparsight;
using namespace sparsight::ui;

namespace {

constexpr Index kTokens = 1500;

double numberOf(const MethodSpec& spec, const char* name) {
    const auto at = spec.params.numbers.find(name);
    return at == spec.params.numbers.end() ? -1 : at->second;
}

sessions::CaptureInfo capture() {
    sessions::CaptureInfo c;
    c.config.layers = 1;
    c.config.heads = c.config.kvHeads = 2;
    c.layersDone = {0};
    c.tokenIds.assign(std::size_t(kTokens), 1);
    return c;
}

}  // namespace

class TestPanels : public QObject {
    Q_OBJECT

private slots:
    void initTestCase() { applyTheme(ThemeChoice::Dark); }

    void aStepOfTheSliderIsAWholeStepOfTheValue() {
        ParamEditor editor;
        QSignalSpy edited(&editor, &ParamEditor::edited);
        editor.setSpec(parseMethod("vertical-slash:vertical=16,slash=64,block=64"), kTokens);
        editor.show();
        auto* vertical = editor.findChild<QSlider*>(QStringLiteral("slider_vertical"));
        // On the logarithmic scale one position is far less than a token here.
        QTest::keyClick(vertical, Qt::Key_Right);
        QCOMPARE(numberOf(editor.spec(), "vertical"), 17.0);
        QTest::keyClick(vertical, Qt::Key_Left);
        QCOMPARE(numberOf(editor.spec(), "vertical"), 16.0);
        // A value that must be a multiple stays one, wherever the slider is dropped.
        auto* block = editor.findChild<QSlider*>(QStringLiteral("slider_block"));
        for (const int position : {100, 400, 600, 1000}) {
            block->setSliderDown(true);
            block->setValue(position);
            block->setSliderDown(false);
            const double value = numberOf(editor.spec(), "block");
            QVERIFY2(value == 64 || value == 128, qPrintable(QString::number(value)));
        }
        QCOMPARE(numberOf(editor.spec(), "block"), 128.0);
        QVERIFY(!edited.empty());
    }

    void aTypedValueMayHaveItsUnit() {
        ParamEditor editor;
        editor.setSpec(parseMethod("a-shape:sink=4,window=256"), kTokens);
        auto* window = editor.findChild<QLineEdit*>(QStringLiteral("param_window"));
        QCOMPARE(window->text(), QStringLiteral("256 tokens"));
        for (const auto& [typed, value] :
             {std::pair("1,024 tokens", 1024.0), std::pair("32", 32.0), std::pair("much", 32.0)}) {
            window->setText(QLatin1String(typed));
            emit window->editingFinished();
            QCOMPARE(numberOf(editor.spec(), "window"), value);
        }
        QCOMPARE(window->text(), QStringLiteral("32 tokens"));
    }

    void everyFieldFollowsAChangeFromOutside() {
        ParamEditor editor;
        QSignalSpy edited(&editor, &ParamEditor::edited);
        editor.setSpec(parseMethod("antidiagonal:released=1"), kTokens);
        auto* released = editor.findChild<QCheckBox*>(QStringLiteral("param_released"));
        QVERIFY(released->isChecked());
        editor.setSpec(parseMethod("antidiagonal:released=0,threshold=0.5"), kTokens);
        QVERIFY(!released->isChecked());
        QCOMPARE(editor.findChild<QLineEdit*>(QStringLiteral("param_threshold"))->text(),
                 QStringLiteral("0.5"));
        editor.setSpec(parseMethod("retrieval-heads:heads=6.5"), kTokens);
        auto* heads = editor.findChild<QLineEdit*>(QStringLiteral("param_heads"));
        QCOMPARE(heads->text(), QStringLiteral("6.5"));
        editor.setSpec(parseMethod("retrieval-heads"), kTokens);
        QCOMPARE(heads->text(), QString());
        QVERIFY(edited.empty());  // showing is no edit
    }

    void aLayerShowsWhetherItsNumbersAreOfItsRule() {
        Document document;
        Engine engine;
        MaskPanel panel(&document, &engine);
        document.setMasks({maskLayer("a-shape"), maskLayer("dense")});
        document.openCapture(nullptr, capture());
        document.setActiveMask(0);
        auto* recall = panel.findChild<QLabel*>(QStringLiteral("maskRecall0"));
        auto* card = panel.findChild<QLabel*>(QStringLiteral("cardRecall"));
        auto* note = panel.findChild<QLabel*>(QStringLiteral("maskNote"));
        QCOMPARE(recall->text(), QStringLiteral("…"));
        auto metrics = std::make_shared<MaskMetrics>();
        metrics->recall = 0.75;
        document.setMetrics(0, metrics);
        QCOMPARE(recall->text(), QStringLiteral("0.750"));
        QVERIFY(!document.metricsStale(0) && !recall->property("stale").toBool());
        document.setMaskSpec(0, parseMethod("a-shape:window=32"));
        QCOMPARE(card->text(), QStringLiteral("0.750"));  // does not flicker, but steps back
        QVERIFY(document.metricsStale(0));
        QVERIFY(recall->property("stale").toBool() && card->property("stale").toBool());
        document.failMask(0, QStringLiteral("the layer 0 is damaged: capture it again"));
        QVERIFY(!document.metrics(0));
        QCOMPARE(recall->text(), QStringLiteral("failed"));
        QCOMPARE(card->text(), QStringLiteral("–"));
        QCOMPARE(note->text(), document.maskFailure(0));
        document.setMetrics(0, metrics);
        QCOMPARE(document.maskFailure(0), QString());
        QCOMPARE(recall->text(), QStringLiteral("0.750"));
        QVERIFY(!recall->property("stale").toBool());
    }

    void theMainColumnsOfTheHeadsTableFitANarrowPanel() {
        Document document;
        Engine engine;
        MetricsTable table(&document, &engine);
        table.resize(430, 160);
        table.show();
        QVERIFY(QTest::qWaitForWindowExposed(&table));
        std::vector<MaskMetrics> rows(64);
        std::vector<HeadFacts> facts(64);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            rows[i].layer = facts[i].layer = 11;
            rows[i].head = facts[i].head = Index(i);
            rows[i].density = 0.297;
            facts[i].label = "retrieval";
        }
        document.setTableMetrics(rows);
        document.setHeadFacts(facts);
        const auto* view = table.findChild<QTableView*>(QStringLiteral("metricsTable"));
        int sum = 0;
        for (int c = MetricsModel::Head; c <= MetricsModel::Label; ++c) {
            const QString text = view->model()->index(0, c).data().toString();
            QVERIFY2(view->columnWidth(c) > view->fontMetrics().horizontalAdvance(text) + 12,
                     qPrintable(text));
            sum += view->columnWidth(c);
        }
        QVERIFY2(sum <= view->viewport()->width(), qPrintable(QString::number(sum)));
        // There is room for more in a wide one, and none of it is lost.
        const int before = view->columnWidth(MetricsModel::Label);
        table.resize(1100, 160);
        QTRY_VERIFY(view->columnWidth(MetricsModel::Label) > before);
    }

    void theRowsTopKeysAreListed() {
        const sessions::test::TempFolder folder;
        const auto session = sessions::Session::create(folder / "top.sparsight");
        const Index tokens = 100;
        sessions::test::writeCapture(*session, tokens);
        const std::string plain = session->captureInfo().uuid;
        const std::string stored =
            session->beginCapture(sessions::test::smallRequest(tokens, kernels::DType::F32, true));
        for (Index l = 0; l < sessions::test::kLayers; ++l) {
            const auto layer = sessions::test::smallLayer(l, tokens, kernels::DType::F32, true);
            session->addLayer(stored, layer->capture, layer->stats);
        }
        session->finishCapture(stored, "complete");

        Document document;
        Engine engine;
        TopKeysList panel(&document, &engine);
        const auto* list = panel.findChild<QTreeWidget*>(QStringLiteral("topKeysList"));
        const auto* title = panel.findChild<QLabel*>(QStringLiteral("topKeysTitle"));
        const auto* origin = panel.findChild<QLabel*>(QStringLiteral("topKeysOrigin"));
        QCOMPARE(list->topLevelItemCount(), 0);
        document.openCapture(session, session->captureInfo(stored));
        document.selectHead(1, 2);
        document.selectQuery(50);
        QTRY_COMPARE(list->topLevelItemCount(), 51);  // all that the row sees
        QCOMPARE(title->text(), QStringLiteral("Top keys of row 50"));
        QCOMPARE(origin->text(), QStringLiteral("stored"));
        const auto made = sessions::test::smallLayer(1, tokens, kernels::DType::F32, true);
        const auto at = std::size_t((2 * tokens + 50) * kTopKeys);
        double sum = 0;
        for (int n = 0; n < 51; ++n) {
            const QTreeWidgetItem* item = list->topLevelItem(n);
            const double p = double(made->stats.top.p[at + std::size_t(n)]);
            sum += p;
            QCOMPARE(item->text(1), QString::number(made->stats.top.key[at + std::size_t(n)]));
            QCOMPARE(item->text(3), QString::number(p, 'f', 4));
            QCOMPARE(item->text(4), QString::number(sum, 'f', 4));
        }
        panel.resize(400, 900);
        panel.show();
        QVERIFY(QTest::qWaitForWindowExposed(&panel));
        const QRect third = list->visualItemRect(list->topLevelItem(2));
        QTest::mouseClick(list->viewport(), Qt::LeftButton, {}, third.center());
        QCOMPARE(document.key(), Index(made->stats.top.key[at + 2]));

        // Another row, then a capture that keeps none.
        document.selectQuery(99);
        QTRY_COMPARE(list->topLevelItemCount(), 64);
        document.openCapture(session, session->captureInfo(plain));
        document.selectHead(1, 2);
        document.selectQuery(50);
        QTRY_COMPARE(origin->text(), QStringLiteral("computed"));
        const auto layer = session->layer(plain, 1);
        const TopKeys own =
            rowTopKeys(headProblem(*layer, 2), headQ(*layer, 2), headK(*layer, 2), 50, kTopKeys);
        QCOMPARE(list->topLevelItemCount(), 51);
        QCOMPARE(list->topLevelItem(0)->text(1), QString::number(own.key[0]));
        QCOMPARE(list->topLevelItem(50)->text(4), QStringLiteral("1.0000"));
        document.close();
        QCOMPARE(list->topLevelItemCount(), 0);
        QTRY_VERIFY(engine.idle());
    }

    void theOverlapWithTheTopKeysIsShownWhereItIsKnown() {
        Document document;
        Engine engine;
        MaskPanel panel(&document, &engine);
        const auto* label = panel.findChild<QLabel*>(QStringLiteral("topOverlap"));
        document.openCapture(nullptr, capture());
        document.setMasks({maskLayer("a-shape:sink=4,window=32")});
        MaskMetrics metrics;
        document.setMetrics(0, std::make_shared<const MaskMetrics>(metrics));
        QVERIFY(label->isHidden());
        metrics.topOverlap = {{0.5, 0.25, 0.125}};
        document.setMetrics(0, std::make_shared<const MaskMetrics>(metrics));
        QVERIFY(!label->isHidden());
        QCOMPARE(label->text(),
                 QStringLiteral("top keys kept: 50.0 % of 1 · 25.0 % of 16 · 12.5 % of 64"));
    }
};

QTEST_MAIN(TestPanels)
#include "test_panels.moc"
