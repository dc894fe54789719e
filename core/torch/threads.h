#pragma once

namespace sparsight {

/// LibTorch's and OpenBLAS's threads. OpenMP keeps the number per calling thread, so every entry
/// into LibTorch sets it; OpenBLAS built on pthreads has a count of its own that LibTorch does not
/// know.
void useTorchThreads(int threads);

}  // namespace sparsight
