#pragma once

namespace sparsight {

/// Makes OpenBLAS use the kernels that this CPU deserves. Call first thing in main.
///
/// OpenBLAS chooses its kernels while it is loaded, before main. A release that does not know the
/// CPU takes ones of 2006 (Debian 12's 0.3.21 on CPUs of 2022 and later), at a fraction of the
/// speed. If that has happened, OPENBLAS_CORETYPE is set and the program starts itself once more,
/// in the same process. Nothing happens when the user has set OPENBLAS_CORETYPE, when OpenBLAS is
/// not in the process, or when its choice is good. If the restart fails the program just goes on.
///
/// @param argv  as main got it, with its closing null pointer
void prepareBlas(int argc, char** argv);

}  // namespace sparsight
