#include "core/model/device.h"

#include <charconv>
#include <cstdio>

namespace sparsight {

DeviceChoice parseDevice(std::string_view name) {
    if (name == "cpu") return {};
    if (name == "cuda") return {true, 0};
    constexpr std::string_view kCuda = "cuda:";
    if (name.starts_with(kCuda)) {
        const std::string_view number = name.substr(kCuda.size());
        int index = 0;
        const auto [end, error] =
            std::from_chars(number.data(), number.data() + number.size(), index);
        if (error == std::errc() && end == number.data() + number.size() && index >= 0 &&
            index < 128)
            return {true, index};
    }
    throw Error(Errc::Usage, "device '" + std::string(name) + "' is not cpu, cuda or cuda:N");
}

Index freeMemory(std::string_view device) {
    const DeviceChoice choice = parseDevice(device);
    if (!choice.gpu) return 0;
    for (const kernels::DeviceInfo& d : kernels::devices())
        if (d.id == choice.id()) return d.freeBytes;
    return 0;
}

std::string bytesText(Index bytes) {
    char text[32];
    if (bytes >= Index(1) << 30)
        std::snprintf(text, sizeof text, "%.1f GiB", double(bytes) / double(Index(1) << 30));
    else
        std::snprintf(text, sizeof text, "%lld MiB",
                      static_cast<long long>((bytes + (1 << 20) - 1) >> 20));
    return text;
}

}  // namespace sparsight
