// Commands about the layout, the map, heads, tokens and mask layers.
#include <QDockWidget>
#include <QJsonArray>

#include "ui/map/decode_bar.h"
#include "ui/map/token_view.h"
#include "ui/panels/run_panel.h"
#include "ui/shell/command_palette.h"
#include "ui/shell/main_window.h"
#include "ui/shell/mask_history.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

QString methodTitle(const Method& m) {
    return QString::fromUtf8(m.title.data(), qsizetype(m.title.size()));
}

}  // namespace

void MainWindow::addViewCommands() {
    for (std::size_t i = 0; i < kLayoutNames.size(); ++i)
        m_commands.add({QStringLiteral("view.layout%1").arg(QLatin1String(kLayoutNames[i])),
                        tr("Layout: %1").arg(tr(kLayoutNames[i])),
                        QKeySequence(QStringLiteral("Ctrl+Alt+%1").arg(i + 1)),
                        [this, i](const QJsonObject&) { setLayout(Layout(i)); },
                        needsSession(),
                        [this, i] { return m_layout == Layout(i); },
                        {}});
    m_commands.add({"view.resetLayout",
                    tr("Reset this layout"),
                    {},
                    [this](const QJsonObject&) { resetLayout(); },
                    needsSession(),
                    {},
                    tr("Puts the docks back where they were made")});
    m_commands.add({"view.fullMap", tr("Map alone"), QKeySequence("F11"),
                    [this](const QJsonObject&) { setMapAlone(!m_mapAlone); }, needsSession(),
                    [this] { return m_mapAlone; },
                    tr("Hides all docks; again, or Esc, brings them back")});
    for (const ThemeChoice choice :
         {ThemeChoice::Dark, ThemeChoice::Light, ThemeChoice::HighContrast, ThemeChoice::System})
        m_commands.add({QStringLiteral("view.theme.") + themeName(choice),
                        tr("Theme: %1").arg(themeName(choice)),
                        {},
                        [this, choice](const QJsonObject&) {
                            applyTheme(choice);
                            m_settings.setValue(QStringLiteral("theme"), themeName(choice));
                        },
                        {},
                        [choice] { return themeChoice() == choice; },
                        {}});

    m_commands.add({"map.fit",
                    tr("Fit the whole map"),
                    QKeySequence(Qt::Key_Home),
                    [this](const QJsonObject&) { m_document.fitView(); },
                    needsSession(),
                    {},
                    {}});
    const auto needsSteps = [this] {
        return m_document.isOpen() && m_document.capture().generated() > 0
                   ? QString()
                   : tr("This capture holds no generated tokens: capture with some.");
    };
    m_commands.add({"decode.next",
                    tr("Next decode step"),
                    QKeySequence("Ctrl+Right"),
                    [this](const QJsonObject&) { m_decode->move(1); },
                    needsSteps,
                    {},
                    tr("Selects the row of the next generated token")});
    m_commands.add({"decode.previous",
                    tr("Previous decode step"),
                    QKeySequence("Ctrl+Left"),
                    [this](const QJsonObject&) { m_decode->move(-1); },
                    needsSteps,
                    {},
                    tr("Selects the row of the generated token before")});
    m_commands.add({"map.centre",
                    tr("Centre the selection"),
                    QKeySequence("F"),
                    [this](const QJsonObject&) { centreSelection(); },
                    needsSession(),
                    {},
                    tr("Again: zooms to its surroundings")});
    m_commands.add({"map.zoomIn",
                    tr("Zoom in"),
                    QKeySequence("+"),
                    [this](const QJsonObject&) { zoom(2); },
                    needsSession(),
                    {},
                    {}});
    m_commands.add({"map.zoomOut",
                    tr("Zoom out"),
                    QKeySequence("-"),
                    [this](const QJsonObject&) { zoom(0.5); },
                    needsSession(),
                    {},
                    {}});
    m_commands.add({"map.pan",
                    tr("Pan the map"),
                    {},
                    [this](const QJsonObject& args) {
                        pan(args.value(QLatin1String("rows")).toDouble(),
                            args.value(QLatin1String("columns")).toDouble());
                    },
                    needsSession(),
                    {},
                    tr("For scripts: by a share of the view (rows, columns)"),
                    false});
    m_commands.add({"map.view",
                    tr("Show a rectangle"),
                    {},
                    [this](const QJsonObject& args) {
                        const MapSize n = m_document.mapSize();
                        const auto v = [&](const char* name, double otherwise) {
                            return args.value(QLatin1String(name)).toDouble(otherwise);
                        };
                        m_document.setView({v("q0", 0), v("q1", n.q), v("k0", 0), v("k1", n.k)});
                    },
                    needsSession(),
                    {},
                    tr("For scripts: in tokens (q0, q1, k0, k1)"),
                    false});
    m_commands.add({"map.log",
                    tr("Logarithmic colour scale"),
                    QKeySequence("L"),
                    [this](const QJsonObject&) {
                        MapStyle s = m_document.style();
                        s.log = !s.log;
                        m_document.setStyle(s);
                    },
                    {},
                    [this] { return m_document.style().log; },
                    tr("Off: linear")});
    m_commands.add({"map.colours",
                    tr("Next colour map"),
                    QKeySequence("C"),
                    [this](const QJsonObject& args) {
                        MapStyle s = m_document.style();
                        s.colours = args.contains(QLatin1String("name"))
                                        ? colourMapByName(argument(args, "name").toStdString())
                                        : ColourMap((int(s.colours) + 1) % 4);
                        m_document.setStyle(s);
                    },
                    {},
                    {},
                    tr("Magma, viridis, cividis, grey (name)")});
    m_commands.add({"map.pool",
                    tr("Next pooling"),
                    QKeySequence("M"),
                    [this](const QJsonObject& args) {
                        MapStyle s = m_document.style();
                        const QStringList names{QStringLiteral("sum"), QStringLiteral("mean"),
                                                QStringLiteral("max")};
                        const qsizetype named = names.indexOf(argument(args, "name"));
                        s.pool =
                            kernels::Statistic(named >= 0 ? int(named) : (int(s.pool) + 1) % 3);
                        m_document.setStyle(s);
                    },
                    {},
                    {},
                    tr("What a pixel that covers many pairs shows: max, sum or mean (name)")});
    m_commands.add({"map.lost", tr("Lost mass of the active mask"), QKeySequence("X"),
                    [this](const QJsonObject& args) {
                        MapStyle s = m_document.style();
                        s.showLost = args.value(QLatin1String("on")).toBool(!s.showLost);
                        m_document.setStyle(s);
                    },
                    needsMask(), [this] { return m_document.style().showLost; },
                    tr("Paints the probability that the mask drops")});
}

void MainWindow::addHeadCommands() {
    m_commands.add({"head.previous",
                    tr("Previous head"),
                    QKeySequence("["),
                    [this](const QJsonObject&) { stepHead(0, -1); },
                    needsSession(),
                    {},
                    {}});
    m_commands.add({"head.next",
                    tr("Next head"),
                    QKeySequence("]"),
                    [this](const QJsonObject&) { stepHead(0, 1); },
                    needsSession(),
                    {},
                    {}});
    m_commands.add({"head.layerUp",
                    tr("Previous layer"),
                    QKeySequence("{"),
                    [this](const QJsonObject&) { stepHead(-1, 0); },
                    needsSession(),
                    {},
                    {}});
    m_commands.add({"head.layerDown",
                    tr("Next layer"),
                    QKeySequence("}"),
                    [this](const QJsonObject&) { stepHead(1, 0); },
                    needsSession(),
                    {},
                    {}});
    m_commands.add(
        {"head.select",
         tr("Select a head"),
         {},
         [this](const QJsonObject& args) {
             requireArgument(args, "layer");
             requireArgument(args, "head");
             const Index layer = numberArgument(args, "layer", -1),
                         head = numberArgument(args, "head", -1);
             const auto& c = m_document.capture();
             if (layer < 0 || layer >= c.config.layers || head < 0 || head >= c.config.heads)
                 throw Error(Errc::NotFound,
                             tr("there is no head L%1 H%2: layers 0 to %3, heads 0 to %4")
                                 .arg(layer)
                                 .arg(head)
                                 .arg(c.config.layers - 1)
                                 .arg(c.config.heads - 1)
                                 .toStdString());
             m_document.selectHead(layer, head);
         },
         needsSession(),
         {},
         tr("For scripts (layer, head)"),
         false});
    m_commands.add({"select.token",
                    tr("Select a query and a key"),
                    {},
                    [this](const QJsonObject& args) {
                        if (args.contains(QLatin1String("query")))
                            m_document.selectQuery(numberArgument(args, "query", -1));
                        if (args.contains(QLatin1String("key")))
                            m_document.selectKey(numberArgument(args, "key", -1));
                    },
                    needsSession(),
                    {},
                    tr("For scripts (query, key)"),
                    false});
    m_commands.add({"query.previous",
                    tr("Previous query row"),
                    QKeySequence(","),
                    [this](const QJsonObject&) {
                        m_document.selectQuery(std::max<Index>(0, m_document.query() - 1));
                    },
                    needsSession(),
                    {},
                    {}});
    m_commands.add({"query.next",
                    tr("Next query row"),
                    QKeySequence("."),
                    [this](const QJsonObject&) { m_document.selectQuery(m_document.query() + 1); },
                    needsSession(),
                    {},
                    {}});
    m_commands.add(
        {"select.clear",
         tr("Back one step"),
         QKeySequence(Qt::Key_Escape),
         [this](const QJsonObject&) {
             if (m_palette->isVisible())
                 m_palette->dismiss();
             else if (m_mapAlone)
                 setMapAlone(false);
             else if (m_document.key() >= 0)
                 m_document.selectKey(-1);
             else
                 m_document.selectQuery(-1);
         },
         needsSession(),
         {},
         tr("Ends the map-alone view, or else clears the selected key, then the query")});
    m_commands.add({"text.fold",
                    tr("Fold unread text"),
                    {},
                    [this](const QJsonObject& args) {
                        m_text->setFolding(
                            args.value(QLatin1String("on")).toBool(!m_text->folding()));
                        m_commands.refresh();
                    },
                    needsSession(),
                    [this] { return m_text && m_text->folding(); },
                    tr("Long stretches of the prompt that the row does not read become a chip")});
    m_commands.add({"text.unfold",
                    tr("Unfold a stretch of text"),
                    {},
                    [this](const QJsonObject& args) {
                        requireArgument(args, "token");
                        const Index token = numberArgument(args, "token", -1);
                        if (!m_text->unfold(token))
                            throw Error(
                                Errc::NotFound,
                                tr("token %1 is not in a folded stretch").arg(token).toStdString());
                    },
                    needsSession(),
                    {},
                    tr("For scripts (token)"),
                    false});
    m_commands.add({"edit.goTo",
                    tr("Go to head, token or text…"),
                    QKeySequence("Ctrl+P"),
                    [this](const QJsonObject& args) {
                        const QString text = argument(args, "text");
                        if (text.isEmpty()) {
                            m_palette->open(false);
                            return;
                        }
                        const auto places = destinations(m_document, text);
                        if (places.empty())
                            throw Error(Errc::NotFound, tr("'%1' is no place: try L6H5, token 463, "
                                                           "q:1444 k:463, \"text\" or worst recall")
                                                            .arg(text)
                                                            .toStdString());
                        if (!places.front().blocked.isEmpty())
                            throw Error(Errc::NotFound, places.front().blocked.toStdString());
                        places.front().go();
                    },
                    {},
                    {},
                    tr("L6H5, token 463, q:1444 k:463, \"text\", worst recall (text)")});
    m_commands.add(
        {"edit.palette",
         tr("Command palette…"),
         QKeySequence("Ctrl+Shift+P"),
         [this](const QJsonObject& args) { m_palette->open(true, argument(args, "text")); },
         {},
         {},
         {},
         false});
    m_commands.add({"edit.find",
                    tr("Find text in the prompt…"),
                    QKeySequence::Find,
                    [this](const QJsonObject&) { m_palette->open(false, QStringLiteral("\"")); },
                    needsSession(),
                    {},
                    {}});
}

void MainWindow::addMaskCommands() {
    for (const Method& m : methods()) {
        const std::string id(m.id);
        m_commands.add({QStringLiteral("mask.add.") + QString::fromStdString(id),
                        tr("Add mask: %1").arg(methodTitle(m)),
                        {},
                        [this, id](const QJsonObject&) { m_document.addMask(maskLayer(id)); },
                        needsSession(),
                        {},
                        QString::fromUtf8(m.summary.data(), qsizetype(m.summary.size()))});
    }
    m_commands.add({"mask.set",
                    tr("Set the mask layers"),
                    {},
                    [this](const QJsonObject& args) {
                        requireArgument(args, "layers");
                        std::vector<MaskLayer> masks;
                        for (const QJsonValue& v : args.value(QLatin1String("layers")).toArray())
                            masks.push_back(maskLayer(v.toString().toStdString()));
                        m_document.setMasks(std::move(masks));
                        m_document.setActiveMask(int(numberArgument(args, "active", 0)));
                    },
                    {},
                    {},
                    tr("For scripts (layers: [\"a-shape:sink=4,window=256\", …], active)"),
                    false});
    m_commands.add({"mask.edit",
                    tr("Change the active mask's rule"),
                    {},
                    [this](const QJsonObject& args) {
                        requireArgument(args, "spec");
                        m_document.setMaskSpec(m_document.activeMask(),
                                               parseMethod(argument(args, "spec").toStdString()));
                    },
                    needsMask(),
                    {},
                    tr("For scripts (spec)"),
                    false});
    m_commands.add({"mask.activate",
                    tr("Choose the active mask"),
                    {},
                    [this](const QJsonObject& args) {
                        m_document.setActiveMask(int(numberArgument(args, "index", 0)));
                    },
                    needsMask(),
                    {},
                    tr("For scripts (index)"),
                    false});
    m_commands.add({"mask.remove",
                    tr("Remove the active mask"),
                    {},
                    [this](const QJsonObject&) { m_document.removeActiveMask(); },
                    needsMask(),
                    {},
                    {}});
    for (int i = 0; i < 9; ++i)
        m_commands.add({QStringLiteral("mask.toggle%1").arg(i + 1),
                        tr("Mask layer %1 on or off").arg(i + 1),
                        QKeySequence(QString::number(i + 1)),
                        [this, i](const QJsonObject&) {
                            if (i < int(m_document.masks().size()))
                                m_document.setMaskVisible(
                                    i, !m_document.masks()[std::size_t(i)].visible);
                        },
                        [this, i] {
                            return i < int(m_document.masks().size())
                                       ? QString()
                                       : tr("There is no mask layer %1.").arg(i + 1);
                        },
                        [this, i] {
                            return i < int(m_document.masks().size()) &&
                                   m_document.masks()[std::size_t(i)].visible;
                        },
                        {},
                        i < 5});
    m_commands.add(
        {"edit.undo",
         tr("Undo the mask edit"),
         QKeySequence::Undo,
         [this](const QJsonObject&) { m_history->undo(); },
         [this] { return m_history->canUndo() ? QString() : tr("There is nothing to undo."); },
         {},
         {}});
    m_commands.add(
        {"edit.redo",
         tr("Redo the mask edit"),
         QKeySequence("Ctrl+Shift+Z"),
         [this](const QJsonObject&) { m_history->redo(); },
         [this] { return m_history->canRedo() ? QString() : tr("There is nothing to redo."); },
         {},
         {}});
    m_commands.add(
        {"run.kernel",
         tr("Run kernel"),
         QKeySequence("F5"),
         [this](const QJsonObject&) {
             // Its result must be seen where it is shown.
             if (auto* dock = findChild<QDockWidget*>(QStringLiteral("dockRun"))) {
                 dock->show();
                 dock->raise();
             }
             m_run->run();
         },
         needsMask(),
         {},
         tr("Measures dense and the active mask on this machine, at least five times each")});
}

}  // namespace sparsight::ui
