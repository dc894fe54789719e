// The map's pictures: coarse ones from the pyramid, exact ones from the quick lane.
#include <QCoreApplication>
#include <algorithm>
#include <cmath>

#include "ui/engine.h"
#include "ui/map/map_view.h"
#include "ui/shell/banner.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr Index kCoarseBlocks = 512;
constexpr std::size_t kRows = 48;  ///< rows kept for the read-out
constexpr int kMostPixels = 4096;
constexpr int kMinimapPixels = 164;

bool sameSpec(const kernels::RenderSpec& a, const kernels::RenderSpec& b) {
    return a.q0 == b.q0 && a.q1 == b.q1 && a.k0 == b.k0 && a.k1 == b.k1 && a.width == b.width &&
           a.height == b.height && a.statistic == b.statistic;
}

}  // namespace

void MapView::dirty() {
    m_composedOld = true;
    update();
}

void MapView::lose(Part part, const QString& sentence) {
    m_failures[part] = sentence;
    // The most telling one; the others have the same cause as a rule.
    m_notice->showMessage(m_failures.begin()->second, tr("Try again"), [this] {
        m_failures.clear();
        request();
        requestRow(m_document->query());
        update();
    });
    placeNotice();
    m_notice->raise();
    dirty();
    tellStatus();
}

void MapView::mend(Part part) {
    m_failures.erase(part);
    if (m_failures.empty()) m_notice->hide();
}

void MapView::placeNotice() {
    const int width = int(std::clamp(m_plot.width() - 16, 240.0, 620.0)),
              height = m_notice->heightForWidth(width);
    m_notice->setGeometry(int(m_plot.left()) + 8, int(m_plot.bottom()) - height - 8, width, height);
}

void MapView::headPicturesChanged() {
    m_head = selectedHead(*m_document);
    m_failures.clear();
    m_notice->hide();
    m_exact = {};
    m_whole = {};
    m_wholeSmall = {};
    m_overlays.clear();
    m_lost = {};
    m_lostValid = false;
    m_rows.clear();
    m_rowAsked = -1;
    remakeCoarse();
    request();
    if (m_document->query() >= 0) requestRow(m_document->query());
}

void MapView::remakeCoarse() {
    m_coarse = {};
    const auto stats = m_document->stats(m_document->layer());
    if (stats && m_head.valid()) {
        const ColourScale fixed = probabilityScale(m_document->style());
        const bool sum = m_document->style().pool == kernels::Statistic::Sum;
        const double perPixel = m_plot.width() > 0 ? std::max(1.0, 1 / pixelsPerToken()) : 0;
        const bool scaled =
            sum && m_exact.values && m_exact.spec.statistic == m_document->style().pool;
        m_coarse =
            paintPyramid(*stats, m_document->head(), m_document->style(), kCoarseBlocks, perPixel,
                         scaled ? &m_exact.scale
                         : sum  ? nullptr
                                : &fixed);
    }
    dirty();
    tellStatus();
}

kernels::RenderSpec MapView::visibleSpec() const {
    const MapRect& v = m_document->view();
    const Index rows = m_document->rows(), keys = m_document->keys();
    kernels::RenderSpec s;
    s.q0 = std::clamp<Index>(Index(std::floor(v.q0)), 0, rows);
    s.q1 = std::clamp<Index>(Index(std::ceil(v.q1)), 0, rows);
    s.k0 = std::clamp<Index>(Index(std::floor(v.k0)), 0, keys);
    s.k1 = std::clamp<Index>(Index(std::ceil(v.k1)), 0, keys);
    // A token that covers a screen pixel or more is drawn once and magnified.
    const auto pixels = [ratio = devicePixelRatioF()](Index tokens, double span, double screen) {
        const double exact = double(tokens) / span * screen * ratio;
        return std::clamp<Index>(Index(std::lround(exact)), 1,
                                 std::min<Index>(std::max<Index>(tokens, 1), kMostPixels));
    };
    s.height = pixels(s.q1 - s.q0, v.q1 - v.q0, m_plot.height());
    s.width = pixels(s.k1 - s.k0, v.k1 - v.k0, m_plot.width());
    s.statistic = m_document->style().pool;
    return s;
}

void MapView::request() {
    // The engine waits for what the map asks: one turn of the event loop gathers a burst of
    // changes.
    m_requestSoon.start();
    m_overlaysSoon.start();
}

void MapView::requestExact() {
    if (!m_head.valid() || !isVisible() || m_plot.width() < 8) return;
    const kernels::RenderSpec spec = visibleSpec();
    if (spec.q1 <= spec.q0 || spec.k1 <= spec.k0) return;
    const MapStyle style = m_document->style();
    const auto known = m_exact.values && sameSpec(m_exact.spec, spec) ? m_exact.values : nullptr;
    auto work = [head = m_head, spec, style, known,
                 backend = m_engine->backend(Engine::Quick)](const Job& job) {
        Exact e;
        e.spec = spec;
        e.values =
            known
                ? known
                : std::make_shared<const std::vector<float>>(readPixels(head, spec, *backend, job));
        e.scale = style.pool == kernels::Statistic::Sum
                      ? fitScale(style.colours, style.log, *e.values)
                      : probabilityScale(style);
        e.picture = {paintValues(*e.values, spec.width, spec.height, e.scale), spec.q0, spec.q1,
                     spec.k0, spec.k1};
        return e;
    };
    m_engine->run(Engine::Quick, QStringLiteral("map"), std::move(work))
        .then(this,
              [this, head = m_head](const Exact& exact) {
                  if (!head.same(m_head)) return;
                  mend(Part::Pixels);
                  m_exact = exact;
                  if (exact.spec.q1 - exact.spec.q0 == m_document->rows() &&
                      exact.spec.k1 - exact.spec.k0 == m_document->keys()) {
                      m_whole = exact.picture;
                      m_wholeSmall = exact.picture.image.scaled(kMinimapPixels, kMinimapPixels,
                                                                Qt::IgnoreAspectRatio,
                                                                Qt::SmoothTransformation);
                  }
                  if (m_document->style().pool == kernels::Statistic::Sum) remakeCoarse();
                  dirty();
                  tellStatus();
              })
        .onFailed(this, [this, head = m_head](const std::exception& e) {
            if (!head.same(m_head)) return;
            m_exact = {};  // pixels of another rectangle must not pass for these
            const QString why = reasonOf(e);
            lose(
                Part::Pixels,
                m_coarse.isNull()
                    ? tr("The map of this head cannot be drawn: %1. If it stays so, capture the "
                         "prompt again.")
                          .arg(why)
                    : tr("Only the coarse map can be shown: %1. If it stays so, capture the prompt "
                         "again.")
                          .arg(why));
        });
}

void MapView::requestOverlays() {
    if (!m_head.valid() || !isVisible() || m_plot.width() < 8) return;
    const kernels::RenderSpec spec = visibleSpec();
    if (spec.q1 <= spec.q0 || spec.k1 <= spec.k0) return;
    std::vector<Overlay> wanted;
    const auto& masks = m_document->masks();
    bool any = false;
    for (std::size_t i = 0; i < masks.size(); ++i) {
        wanted.push_back(
            {masks[i].visible ? m_document->policy(int(i)) : nullptr, masks[i].colour});
        any |= wanted.back().policy != nullptr;
    }
    if (!any) {
        m_engine->stop(QStringLiteral("map:overlays"));
        m_overlays.clear();
        mend(Part::Masks);
        dirty();
    } else {
        if (m_overlays.size() == wanted.size() && wanted == m_overlaysOf &&
            sameSpec(spec, m_overlaysSpec)) {
            // Only the opacity or the active layer has changed; what is under way is of another
            // state.
            m_engine->stop(QStringLiteral("map:overlays"));
            requestLost();
            return;
        }
        auto work = [head = m_head, spec, wanted](const Job& job) {
            std::vector<Picture> pictures;
            for (const Overlay& w : wanted) {
                Picture p{{}, spec.q0, spec.q1, spec.k0, spec.k1};
                if (w.policy)
                    p.image = paintShare(readKept(head, *w.policy, spec, job), spec.width,
                                         spec.height, w.colour);
                pictures.push_back(std::move(p));
            }
            return pictures;
        };
        m_engine->run(Engine::Quick, QStringLiteral("map:overlays"), std::move(work))
            .then(this,
                  [this, head = m_head, spec, wanted](const std::vector<Picture>& pictures) {
                      if (!head.same(m_head)) return;
                      mend(Part::Masks);
                      m_overlays = pictures;
                      m_overlaysOf = wanted;
                      m_overlaysSpec = spec;
                      dirty();
                  })
            .onFailed(this, [this, head = m_head](const std::exception& e) {
                if (!head.same(m_head)) return;
                m_overlays.clear();
                lose(Part::Masks,
                     tr("The mask layers cannot be drawn over the map: %1.").arg(reasonOf(e)));
            });
    }
    requestLost();
}

void MapView::requestLost() {
    const auto policy = m_document->style().showLost && m_document->activeMask() >= 0
                            ? m_document->policy(m_document->activeMask())
                            : nullptr;
    if (!policy) {
        m_engine->stop(QStringLiteral("map:lost"));
        if (m_lostValid) dirty();
        m_lostValid = false;
        m_lost = {};
        mend(Part::Lost);
        return;
    }
    kernels::RenderSpec spec = visibleSpec();
    auto work = [head = m_head, spec, policy, colour = theme().lost, style = m_document->style(),
                 backend = m_engine->backend(Engine::Quick)](const Job& job) {
        kernels::RenderSpec lost = spec;
        lost.show = kernels::Show::Lost;
        lost.mask = policy.get();
        const std::vector<float> values = readPixels(head, lost, *backend, job);
        const ColourScale scale = style.pool == kernels::Statistic::Sum
                                      ? fitScale(style.colours, style.log, values)
                                      : probabilityScale(style);
        return Picture{paintLost(values, spec.width, spec.height, scale, colour), spec.q0, spec.q1,
                       spec.k0, spec.k1};
    };
    m_engine->run(Engine::Quick, QStringLiteral("map:lost"), std::move(work))
        .then(this,
              [this, head = m_head](const Picture& picture) {
                  if (!head.same(m_head) || !m_document->style().showLost) return;
                  mend(Part::Lost);
                  m_lost = picture;
                  m_lostValid = true;
                  dirty();
              })
        .onFailed(this, [this, head = m_head](const std::exception& e) {
            if (!head.same(m_head) || !m_document->style().showLost) return;
            m_lostValid = false;
            m_lost = {};
            lose(Part::Lost, tr("The lost mass cannot be drawn: %1.").arg(reasonOf(e)));
        });
}

void MapView::requestRow(Index wanted) {
    if (!m_head.valid() || wanted < 0 || wanted >= m_document->rows() || wanted == m_rowAsked ||
        row(wanted))
        return;
    m_rowAsked = wanted;
    auto work = [head = m_head, wanted](const Job&) { return Row{wanted, readRow(head, wanted)}; };
    m_engine->run(Engine::Quick, QStringLiteral("map:row"), std::move(work))
        .then(this,
              [this, head = m_head](const Row& r) {
                  if (!head.same(m_head)) return;
                  mend(Part::Row);
                  if (m_rowAsked == r.row) m_rowAsked = -1;
                  m_rows.push_back(r);
                  // The hovered row may come later than the selected one, which must stay.
                  if (m_rows.size() > kRows) {
                      const bool selected = m_rows.front().row == m_document->query();
                      m_rows.erase(m_rows.begin() + (selected ? 1 : 0));
                  }
                  update();
              })
        .onFailed(this, [this, head = m_head, wanted](const std::exception& e) {
            if (!head.same(m_head)) return;
            m_rowAsked = -1;
            lose(
                Part::Row,
                tr("The values of row %1 cannot be read: %2.").arg(thousands(wanted), reasonOf(e)));
        });
}

const MapView::Row* MapView::row(Index wanted) const {
    for (auto r = m_rows.rbegin(); r != m_rows.rend(); ++r)
        if (r->row == wanted) return &*r;
    return nullptr;
}

void MapView::tellStatus() {
    QString perPixel, range, exactness;
    if (m_head.valid() && m_plot.width() > 0) {
        const double ppt = pixelsPerToken();
        perPixel = ppt < 1 ? tr("%1 tokens per pixel").arg(1 / ppt, 0, 'f', 2)
                           : tr("%1 pixels per token").arg(ppt, 0, 'f', ppt < 10 ? 1 : 0);
        const kernels::RenderSpec spec = visibleSpec();
        range = tr("rows %1–%2 · columns %3–%4")
                    .arg(thousands(spec.q0), thousands(spec.q1 - 1), thousands(spec.k0),
                         thousands(spec.k1 - 1));
        if (m_exact.values && sameSpec(m_exact.spec, spec))
            exactness = tr("exact");
        else if (!m_coarse.isNull())
            exactness = tr("pyramid %1").arg(m_coarse.block);
    }
    const QString all = perPixel + range + exactness;
    if (all == m_status) return;
    m_status = all;
    emit statusChanged(perPixel, range, exactness);
}

}  // namespace sparsight::ui
