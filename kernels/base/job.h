#pragma once

#include <functional>
#include <string_view>
#include <utility>

#include "kernels/base/error.h"

namespace sparsight {

/// Through it long work reports progress and learns that it should stop. A default Job (tests,
/// batch) does neither. Copies share the two functions; both may be called from any one thread at
/// a time.
class Job {
public:
    Job() = default;
    Job(std::function<void(double, std::string_view)> report, std::function<bool()> stopAsked)
        : m_report(std::move(report)), m_stopAsked(std::move(stopAsked)) {}

    /// Reports `fraction` in [0, 1] and a few words; call every ~50 ms.
    /// @throws Cancelled when a stop was asked
    void step(double fraction, std::string_view stage = {}) const {
        check();
        if (m_report) m_report(fraction, stage);
    }
    /// @throws Cancelled when a stop was asked
    void check() const {
        if (stopAsked()) throw Cancelled{};
    }
    bool stopAsked() const { return m_stopAsked && m_stopAsked(); }

    /// A job whose fractions 0..1 are mapped to [from, to] of this one.
    Job part(double from, double to) const {
        if (!m_report) return Job({}, m_stopAsked);
        return Job([report = m_report, from, to](double f,
                                                 std::string_view s) { report(from + f * (to - from), s); },
                   m_stopAsked);
    }

private:
    std::function<void(double, std::string_view)> m_report;
    std::function<bool()> m_stopAsked;
};

}  // namespace sparsight
