#pragma once

#include <cuda.h>

#include <cstdint>

/// The few PTX instructions that the kernels are built from, one function each.
namespace sparsight::kernels::cuda::ptx {

__device__ inline std::uint32_t shared(const void* p) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// --- mbarriers. A phase ends when `count` arrivals and all announced bytes have come.
__device__ inline void barrierInit(std::uint64_t* bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared(bar)), "r"(count));
}
/// Makes initialised barriers visible to the copy engine.
__device__ inline void barrierInitFence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(std::uint64_t* bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared(bar)) : "memory");
}
__device__ inline void arriveExpect(std::uint64_t* bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared(bar)),
                 "r"(bytes)
                 : "memory");
}
/// Waits until the phase of parity `parity` has ended; parity 1 on a new barrier does not wait.
__device__ inline void wait(std::uint64_t* bar, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni over;\n"
        "bra.uni again;\n"
        "over:\n"
        "}\n" ::"r"(shared(bar)),
        "r"(parity)
        : "memory");
}

// --- copies
/// A box of a tensor map to the shared address `to`; its bytes are counted on `bar`. Coordinates
/// are (element, token, head, batch); what lies outside the tensor arrives as zeros.
__device__ inline void loadBox(std::uint32_t to, const CUtensorMap* map, std::uint64_t* bar,
                               int element, int token, int head, int batch) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
        "l"(map), "r"(shared(bar)), "r"(element), "r"(token), "r"(head), "r"(batch)
        : "memory");
}
/// `bytes` (a multiple of 16) from global to shared memory, counted on `bar`; both on 16 bytes.
__device__ inline void loadBytes(void* to, const void* from, int bytes, std::uint64_t* bar) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(shared(to)),
        "l"(from), "r"(bytes), "r"(shared(bar))
        : "memory");
}
__device__ inline void prefetchMap(const CUtensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/// 16 bytes to a shared address, or 16 zeros when `real` is false; finished at the next
/// arriveCopied or copyWait.
__device__ inline void copy16(std::uint32_t to, const void* from, bool real) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(real ? 16 : 0)
                 : "memory");
}
/// Keeps the phase of `bar` from ending before every copy16 of this thread has landed; it counts
/// as no arrival of its own.
__device__ inline void holdForCopies(std::uint64_t* bar) {
    asm volatile("cp.async.mbarrier.arrive.shared::cta.b64 [%0];" ::"r"(shared(bar)) : "memory");
}
/// Orders shared memory written by ordinary stores and copy16 before what the tensor cores and
/// the copy engine do next.
__device__ inline void fenceAsync() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// --- results
/// Four 8 x 8 matrices of 16-bit numbers to shared memory: lane l gives where row l % 8 of matrix
/// l / 8 begins, and holds the pair (row l / 4, columns 2 (l % 4)) of each.
__device__ inline void storeMatrices(std::uint32_t to, const std::uint32_t (&m)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                 "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
                 : "memory");
}
/// A box of shared memory to a tensor, as loadBox; what lies outside the tensor is dropped. The
/// boxes of a thread since its last storeCommit are one group.
__device__ inline void storeBox(const CUtensorMap* map, std::uint32_t from, int element, int token,
                                int head, int batch) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], "
        "[%1];" ::"l"(map),
        "r"(from), "r"(element), "r"(token), "r"(head), "r"(batch)
        : "memory");
}
__device__ inline void storeCommit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// The shared memory of this thread's boxes may be written again.
__device__ inline void storeWaitRead() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
/// This thread's boxes are stored.
__device__ inline void storeWait() {
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// --- register budget of a warpgroup
template <int N>
__device__ inline void registersUp() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ inline void registersDown() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
/// Barrier among `threads` threads; ids from 1 on.
__device__ inline void namedBarrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Counts as `threads` wait at it, and goes on.
__device__ inline void namedArrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace sparsight::kernels::cuda::ptx
