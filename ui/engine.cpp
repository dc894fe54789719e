#include "ui/engine.h"

#include <tuple>

#include "core/model/device.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {

Engine::Engine(QObject* parent)
    : QObject(parent),
      m_quickBackend(kernels::makeBackend()),
      m_longBackend(kernels::makeBackend()) {
    for (QThreadPool* p : {&m_quick, &m_long}) {
        p->setMaxThreadCount(1);
        p->setExpiryTimeout(-1);
    }
    // `ended` comes from the lane's thread: the count is kept here, on the GUI thread, by the
    // queued call. A result's continuation is queued right behind it.
    connect(this, &Engine::ended, this, [this](const QString& tag, const QString& outcome) {
        if (--m_jobs[tag] == 0) m_jobs.remove(tag);
        uiLog(QStringLiteral("job"),
              {{QStringLiteral("tag"), tag}, {QStringLiteral("outcome"), outcome}});
    });
}

Engine::~Engine() {
    finish();
}

void Engine::finish() {
    stopAll();
    m_quick.waitForDone();
    m_long.waitForDone();
}

void Engine::begin(const QString& tag) {
    ++m_jobs[tag];
    emit began(tag);
}

void Engine::stop(const QString& tag) {
    if (const auto flag = m_stops.value(tag)) *flag = true;
}

void Engine::stopAll() {
    for (const auto& flag : std::as_const(m_stops)) *flag = true;
}

std::shared_ptr<kernels::Backend> Engine::backend(Lane lane) const {
    return lane == Quick ? m_quickBackend : m_longBackend;
}

void Engine::useDevice(const QString& id) {
    using Pair = std::pair<std::shared_ptr<kernels::Backend>, std::shared_ptr<kernels::Backend>>;
    auto work = [this, id = id.toStdString()](const Job&) -> Pair {
        const auto make = [&] {
            return backendOrCpu(id, 0, [this](const std::string& sentence) {
                emit noted(QString::fromStdString(sentence));
            });
        };
        return {make(), make()};
    };
    run(Long, QStringLiteral("device"), std::move(work))
        .then(this,
              [this, id](const Pair& backends) {
                  std::tie(m_quickBackend, m_longBackend) = backends;
                  m_device = id;
                  emit deviceChanged();
              })
        .onFailed(this, [this](const std::exception& e) {
            emit deviceFailed(QString::fromUtf8(e.what()));
        });
}

}  // namespace sparsight::ui
