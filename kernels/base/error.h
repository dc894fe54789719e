#pragma once

#include <stdexcept>
#include <string>

namespace sparsight {

/// What kind of thing went wrong. The CLI turns it into its exit status, the GUI into icon and advice.
enum class Errc {
    Usage,        ///< the command or a parameter is wrong: exit 2
    Io,           ///< a file could not be read or written: exit 3
    Format,       ///< a file is damaged or of another format: exit 3
    Shape,        ///< a tensor's shape is not what was promised: exit 3
    Unsupported,  ///< valid, but nothing that Sparsight can do: exit 3
    NotFound,     ///< a file, session, layer, head or method does not exist: exit 4
    Device,       ///< no such device, or it failed: exit 6
    Resources     ///< out of memory, disk or locks: exit 6
};

/// The one exception type of the library. The message is a sentence: what, where, what to do.
class Error : public std::runtime_error {
public:
    Error(Errc code, const std::string& message) : std::runtime_error(message), m_code(code) {}
    Errc code() const noexcept { return m_code; }

private:
    Errc m_code;
};

/// Thrown out of long work when a stop was asked. Not an Error, so that `catch (const Error&)`
/// cannot take a cancel for a failure. CLI exit status 5.
struct Cancelled {};

}  // namespace sparsight
