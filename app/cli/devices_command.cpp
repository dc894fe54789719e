#include <iostream>

#include "app/cli/command.h"
#include "core/model/device.h"

namespace sparsight::cli {
namespace {

void devices(const Context& context) {
    const DeviceList list = deviceList();
    if (context.json) {
        Json all = Json::array();
        for (const kernels::DeviceInfo& d : list.devices)
            all.push_back({{"id", d.id},
                           {"title", d.title},
                           {"memoryBytes", d.memoryBytes},
                           {"freeBytes", d.freeBytes}});
        printJson({{"devices", all}, {"noGpu", list.noGpu}, {"noModel", list.noModel}});
        return;
    }
    std::vector<std::vector<std::string>> rows{{"--device", "what", "memory", "free"}};
    for (const kernels::DeviceInfo& d : list.devices)
        rows.push_back({d.id, d.title, bytesText(d.memoryBytes), bytesText(d.freeBytes)});
    printTable(rows);
    for (const std::string* note : {&list.noGpu, &list.noModel})
        if (!note->empty()) std::cout << "note: " << *note << "\n";
}

}  // namespace

void addDevicesCommand(CLI::App& app, Context& context) {
    addCommand(app, context, "devices", "What --device may name on this machine",
               [&context] { devices(context); });
}

}  // namespace sparsight::cli
