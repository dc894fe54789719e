#include "core/model/device.h"
#include "core/model/runner.h"

namespace sparsight {

DeviceList deviceList() {
    DeviceList list;
    list.devices = kernels::devices();
    if (list.devices.size() > 1) {
        if (const TorchDevices torch = torchDevices(); !torch.gpu)
            list.noModel = torch.reason + " Models run on the CPU, kernels on the GPU.";
        return list;
    }
    try {  // the kernels know best why
        kernels::makeBackend("cuda");
    } catch (const Error& e) {
        list.noGpu = e.what();
    }
    return list;
}

}  // namespace sparsight
