#include "kernels/cuda/hopper_forward.h"

#include <algorithm>

#include "kernels/cuda/hopper_launch.h"
#include "kernels/cuda/hopper_maps.h"

namespace sparsight::kernels::cuda::hopper {
namespace {

template <class T>
Launch launchOfWidth(int width, Want want, bool plain) {
    return width == 64    ? launchOf<T, 64>(want, plain)
           : width == 128 ? launchOf<T, 128>(want, plain)
                          : launchOf<T, 256>(want, plain);
}

/// Outputs begin at multiples of `elements`.
bool aligned(const OutRows& o, int dv, int elements) {
    return reinterpret_cast<std::uintptr_t>(o.p) % std::uintptr_t(elements * bytesOf(o.t)) == 0 &&
           (o.sb | o.sh | o.sn | dv) % elements == 0;
}

}  // namespace

void forward(const Layer& layer, DType type, int width, Rows q, Rows k, Rows v,
             const DevicePlan& plan, OutRows o, const RowStatistics& rows, int* odd,
             cudaStream_t stream) {
    const int items = plan.workCount * layer.batch;
    if (items == 0) return;
    const Scratch next(sizeof(int), stream);
    check(cudaMemsetAsync(next.as<int>(), 0, sizeof(int), stream), "clearing a counter");
    ForwardArgs args{};
    args.layer = layer;
    args.plan = plan;
    args.k = k;
    args.v = v;
    args.o = o;
    args.rows = rows;
    args.next = next.as<int>();
    args.odd = odd;
    const bool mapped = o.p && o.t == type && aligned(o, layer.dv, 8);
    args.wideStores = mapped ? 2 : o.p && aligned(o, layer.dv, 2) ? 1 : 0;
    args.gathers = plan.gathers;
    args.inTurn = plan.shared;
    const Want want = o.p ? Want::Output : rows.beyondLse() ? Want::Statistics : Want::Lse;
    const CUtensorMap qMap = makeMap(q, type, width, layer.Nq, layer.Hq, layer.batch);
    const CUtensorMap kMap = makeMap(k, type, width, layer.Nk, layer.Hkv, layer.batch);
    const CUtensorMap vMap = o.p ? makeMap(v, type, width, layer.Nk, layer.Hkv, layer.batch) : kMap;
    const CUtensorMap oMap = mapped ? makeMap({o.p, o.sb, o.sh, o.sn}, type, layer.dv, layer.Nq,
                                              layer.Hq, layer.batch, 16)
                                    : kMap;
    const Launch launch = type == DType::F16
                              ? launchOfWidth<__half>(width, want, layer.plain())
                              : launchOfWidth<__nv_bfloat16>(width, want, layer.plain());
    launch(args, qMap, kMap, vMap, oMap, std::min(items, multiprocessors()), stream);
}

}  // namespace sparsight::kernels::cuda::hopper
