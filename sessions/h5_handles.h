#pragma once

#include <hdf5.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/view.h"

namespace sparsight::sessions {

/// The innermost reason on HDF5's error stack of this thread, e.g. "unable to open file".
std::string h5Reason();

/// Owner of an HDF5 identifier; an object that exists is valid.
template <herr_t (*Close)(hid_t)>
class H5 {
public:
    H5(hid_t id, const std::string& what) : m_id(id) {
        if (id < 0) throw Error(Errc::Format, "HDF5 cannot " + what + ": " + h5Reason());
    }
    H5(H5&& other) noexcept : m_id(std::exchange(other.m_id, H5I_INVALID_HID)) {}
    H5& operator=(H5&&) = delete;
    ~H5() {
        if (m_id >= 0) Close(m_id);
    }
    operator hid_t() const { return m_id; }

private:
    hid_t m_id;
};
using H5File = H5<H5Fclose>;
using H5Group = H5<H5Gclose>;
using H5Dataset = H5<H5Dclose>;
using H5Space = H5<H5Sclose>;
using H5Type = H5<H5Tclose>;
using H5Attribute = H5<H5Aclose>;
using H5Properties = H5<H5Pclose>;

/// @throws Error(Format) when an HDF5 call failed
inline void h5Check(herr_t status, const std::string& what) {
    if (status < 0) throw Error(Errc::Format, "HDF5 cannot " + what + ": " + h5Reason());
}

/// Stops HDF5 from printing its error stack in this thread.
void h5Quiet();

/// "f32", "f16" (IEEE half), "bf16" (sign 1, exponent 8, mantissa 7, bias 127), "i32", "i64".
H5Type h5TypeOf(const std::string& name);
/// The name of a stored type; "" for any other.
std::string h5TypeName(hid_t type);
/// File access with superblock 2 and checksummed metadata (V18..V18).
H5Properties h5Access();

/// Scalar attributes from a JSON object: integers as i32 (i64 when large), numbers as f64, texts as
/// fixed-length ASCII.
void h5WriteAttributes(hid_t object, const nlohmann::json& attributes);
/// The other way; variable-length strings and arrays are refused.
nlohmann::json h5ReadAttributes(hid_t object, const std::string& name);
std::vector<hsize_t> h5Dims(const std::vector<Index>& shape);

}  // namespace sparsight::sessions
