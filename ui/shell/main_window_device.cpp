#include <QActionGroup>
#include <QLabel>
#include <QMenu>

#include "core/model/device.h"
#include "ui/shell/banner.h"
#include "ui/shell/main_window.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {

void MainWindow::addDeviceCommand() {
    m_commands.add({"device.choose",
                    tr("Choose the device…"),
                    {},
                    [this](const QJsonObject& args) {
                        const QString id = argument(args, "device");
                        if (id.isEmpty())
                            chooseDevice();
                        else
                            m_engine.useDevice(
                                QString::fromStdString(parseDevice(id.toStdString()).id()));
                    },
                    {},
                    {},
                    tr("Where models and kernels run: the CPU or a GPU (device)")});
    connect(&m_engine, &Engine::deviceChanged, this, [this] {
        m_settings.setValue(QStringLiteral("device"), m_engine.device());
        uiLog(QStringLiteral("device"), {{QStringLiteral("id"), m_engine.device()}});
        refreshChips();
    });
    connect(&m_engine, &Engine::deviceFailed, this, &MainWindow::fail);
    connect(&m_engine, &Engine::noted, m_banner,
            [this](const QString& sentence) { m_banner->showMessage(sentence); });
    const QString stored = m_settings.value(QStringLiteral("device"), m_engine.device()).toString();
    if (stored != m_engine.device()) m_engine.useDevice(stored);
}

void MainWindow::chooseDevice() {
    m_engine.run(Engine::Quick, QStringLiteral("devices"), [](const Job&) { return deviceList(); })
        .then(this, [this](const DeviceList& list) { showDeviceMenu(list); })
        .onFailed(this, [this](const std::exception& e) { fail(QString::fromUtf8(e.what())); });
}

void MainWindow::showDeviceMenu(const DeviceList& list) {
    auto* menu = new QMenu(this);
    menu->setObjectName(QStringLiteral("deviceMenu"));
    menu->setAttribute(Qt::WA_DeleteOnClose);
    auto* group = new QActionGroup(menu);
    for (const kernels::DeviceInfo& d : list.devices) {
        const QString id = QString::fromStdString(d.id);
        const QString memory = tr("%1 of %2 free")
                                   .arg(QString::fromStdString(bytesText(d.freeBytes)),
                                        QString::fromStdString(bytesText(d.memoryBytes)));
        QAction* action = menu->addAction(
            QStringLiteral("%1 · %2 · %3").arg(id, QString::fromStdString(d.title), memory));
        action->setObjectName(QStringLiteral("device.") + id);
        action->setCheckable(true);
        action->setChecked(id == m_engine.device());
        group->addAction(action);
        connect(action, &QAction::triggered, this, [this, id] { m_engine.useDevice(id); });
    }
    const auto line = [menu](const QString& name, const QString& text) {
        QAction* action = menu->addAction(text);
        action->setObjectName(name);
        action->setEnabled(false);
    };
    if (!list.noGpu.empty())
        line(QStringLiteral("device.none"),
             tr("no CUDA device: %1").arg(QString::fromStdString(list.noGpu)));
    if (!list.noModel.empty())
        line(QStringLiteral("device.noModel"), QString::fromStdString(list.noModel));
    menu->popup(m_deviceChip->isVisible()
                    ? m_deviceChip->mapToGlobal(m_deviceChip->rect().bottomLeft())
                    : mapToGlobal(rect().center()));
}

}  // namespace sparsight::ui
