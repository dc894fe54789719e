#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <new>

#include "app/cli/command.h"
#include "core/model/blas_env.h"

namespace {

int exitStatus(sparsight::Errc code) {
    using sparsight::Errc;
    switch (code) {
        case Errc::Usage:
            return 2;
        case Errc::Io:
        case Errc::Format:
        case Errc::Shape:
        case Errc::Unsupported:
            return 3;
        case Errc::NotFound:
            return 4;
        case Errc::Device:
        case Errc::Resources:
            return 6;
    }
    return 3;
}

/// `sparsight gui ...` becomes `sparsight-gui ...`: the program beside this one, else the one in
/// PATH.
int startGui(char** argv) {
    std::error_code ec;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", ec);
    const std::string beside = (self.parent_path() / "sparsight-gui").string();
    argv[1] = const_cast<char*>("sparsight-gui");
    if (!ec && std::filesystem::exists(beside))
        execv(beside.c_str(), argv + 1);
    else
        execvp("sparsight-gui", argv + 1);
    std::cerr << "sparsight: cannot start sparsight-gui (" << std::strerror(errno)
              << "); this build may be without the desktop program\n";
    return 4;
}

/// A sentence that suggests the nearest command; empty when argv names one or begins with an
/// option.
std::string unknownCommand(const CLI::App& app, int argc, char** argv) {
    if (argc < 2 || argv[1][0] == '-') return {};
    std::vector<std::string> names;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (command->get_name() == argv[1]) return {};
        names.push_back(command->get_name());
    }
    const std::vector<std::string_view> candidates(names.begin(), names.end());
    const std::string near = sparsight::nearest(argv[1], candidates);
    return "there is no command '" + std::string(argv[1]) + "'" +
           (near.empty() ? "; `sparsight --help` lists them" : " (did you mean '" + near + "'?)");
}

}  // namespace

int main(int argc, char** argv) {
    using namespace sparsight;
    prepareBlas(argc, argv);
    if (const auto status = sessions::runSessionHelper(argc, argv)) return *status;
    if (argc > 1 && std::strcmp(argv[1], "gui") == 0) return startGui(argv);
    std::signal(SIGINT, [](int) { cli::requestStop(); });
    std::signal(SIGTERM, [](int) { cli::requestStop(); });

    CLI::App app{"Sparsight: see where a transformer attends, and prove what may be skipped.",
                 "sparsight"};
    app.require_subcommand(1);
    app.set_version_flag("--version", SPARSIGHT_VERSION);
    cli::Context context;
    cli::addModelCommands(app, context);
    cli::addCaptureCommand(app, context);
    cli::addImportTensorsCommand(app, context);
    cli::addAnalysisCommands(app, context);
    cli::addMapCommand(app, context);
    cli::addTopCommand(app, context);
    cli::addPlanCommands(app, context);
    cli::addMethodsCommand(app, context);
    cli::addDevicesCommand(app, context);
    cli::addSessionCommands(app, context);
    app.add_subcommand("gui", "Start the desktop program (all further arguments go to it)");
    if (const std::string unknown = unknownCommand(app, argc, argv); !unknown.empty()) {
        std::cerr << "sparsight: " << unknown << "\n";
        return 2;
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() == 0) return app.exit(e);  // --help and --version
        std::cerr << "sparsight: " << e.what() << " (see --help)\n";
        return 2;
    }

    try {
        context.action();
        cli::endProgress();
        std::cout.flush();
        if (!std::cout) throw Error(Errc::Io, "cannot write to standard output");
        return 0;
    } catch (const Cancelled&) {
        cli::endProgress();
        std::cerr << "sparsight: cancelled; what was finished is kept\n";
        return 5;
    } catch (const Error& e) {
        cli::endProgress();
        std::cerr << "sparsight: " << e.what() << "\n";
        return exitStatus(e.code());
    } catch (const std::bad_alloc&) {
        cli::endProgress();
        std::cerr << "sparsight: out of memory; try fewer layers or a shorter prompt\n";
        return 6;
    } catch (const std::exception& e) {
        cli::endProgress();
        std::cerr << "sparsight: " << e.what() << "\n";
        return 3;
    }
}
