#pragma once

#include <QFuture>
#include <QHash>
#include <QObject>
#include <QPromise>
#include <QThreadPool>
#include <QtConcurrentRun>
#include <atomic>
#include <memory>
#include <type_traits>

#include "kernels/backend.h"

namespace sparsight::ui {

/// All work over ~50 ms runs here, never on the GUI thread. Two lanes of one thread each: `Quick`
/// for what the user waits for (map pixels, metrics of the selected head), `Long` for captures,
/// runs, plans and whole-model tables. Each lane owns a kernel backend, so a long job never makes
/// a map wait. A newer request of a tag stops and replaces the older one. The device of both lanes
/// changes between two long jobs; jobs that were given a backend before keep it.
class Engine : public QObject {
    Q_OBJECT
public:
    enum Lane { Quick, Long };
    explicit Engine(QObject* parent = nullptr);
    ~Engine() override;

    /// `work(const Job&) -> T` runs in the lane's thread; `.then(this, ...)` and
    /// `.onFailed(this, ...)` run on the GUI thread. A replaced or cancelled job delivers nothing.
    template <class Work>
    auto run(Lane lane, const QString& tag, Work work) {
        using T = std::invoke_result_t<Work, const Job&>;
        if (const auto older = m_stops.value(tag)) *older = true;
        const auto stop = m_stops[tag] = std::make_shared<std::atomic<bool>>(false);
        begin(tag);
        return QtConcurrent::run(
            pool(lane), [this, tag, stop, work = std::move(work)](QPromise<T>& promise) {
                const Job job(
                    [this, tag](double f, std::string_view s) {
                        emit progressed(tag, f, QString::fromUtf8(s.data(), qsizetype(s.size())));
                    },
                    [&] { return *stop || promise.isCanceled(); });
                QString outcome = QStringLiteral("done");
                try {
                    job.step(0);
                    if constexpr (std::is_void_v<T>) {
                        work(job);
                    } else {
                        T result = work(job);
                        job.check();  // a result that was replaced meanwhile is not delivered
                        promise.addResult(std::move(result));
                    }
                } catch (const Cancelled&) {
                    outcome = QStringLiteral("cancelled");
                    promise.future().cancel();
                } catch (const std::exception& e) {
                    outcome = QString::fromUtf8(e.what());
                    promise.setException(std::current_exception());
                }
                emit ended(tag, outcome);
            });
    }
    /// Asks the job of this tag to stop; it does within 0.5 s.
    void stop(const QString& tag);
    void stopAll();
    /// Stops everything and waits until the lanes are empty: before what the jobs refer to goes.
    void finish();
    bool idle() const { return m_jobs.isEmpty(); }  ///< nothing queued or running
    /// A job of this tag is queued or running.
    bool runs(const QString& tag) const { return m_jobs.contains(tag); }
    /// The backend of a lane; use it inside that lane's work only.
    std::shared_ptr<kernels::Backend> backend(Lane lane) const;
    /// "cpu" or "cuda:N", for models.
    const QString& device() const { return m_device; }
    /// Asks for another device, which comes with deviceChanged(), or with deviceFailed() when it is
    /// not there.
    void useDevice(const QString& id);

signals:
    void deviceChanged();
    void deviceFailed(const QString& why);
    /// Something that a backend did otherwise than asked: a call that the CPU made for a GPU.
    void noted(const QString& sentence);
    void progressed(const QString& tag, double fraction, const QString& stage);
    void began(const QString& tag);
    /// outcome: done, cancelled, or the error's sentence
    void ended(const QString& tag, const QString& outcome);

private:
    void begin(const QString& tag);
    QThreadPool* pool(Lane lane) { return lane == Quick ? &m_quick : &m_long; }

    QThreadPool m_quick, m_long;
    std::shared_ptr<kernels::Backend> m_quickBackend, m_longBackend;
    QString m_device = QStringLiteral("cpu");
    QHash<QString, std::shared_ptr<std::atomic<bool>>> m_stops;
    QHash<QString, int> m_jobs;  ///< queued or running, by tag; GUI thread only
};

}  // namespace sparsight::ui
