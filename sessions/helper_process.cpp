#include "sessions/helper_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include "kernels/base/error.h"
#include "sessions/h5_skeleton.h"
#include "sessions/session.h"

extern char** environ;

namespace sparsight::sessions {
namespace {

using Json = nlohmann::json;

constexpr char kSubCommand[] = "--session-helper";
constexpr int kPatienceMs = 120'000;
constexpr std::size_t kMostAnswer = std::size_t(16) << 20;

/// Whether main() offers the sub-command.
std::atomic<bool> g_registered{false};

std::string packed(const std::filesystem::path& path) {
    // JSON holds UTF-8 only, file names any bytes.
    const std::string& text = path.native();
    return toBase64(std::as_bytes(std::span(text)));
}

bool sendLine(int socket, const std::string& line) {
    std::size_t done = 0;
    while (done < line.size()) {
        // No signal when the other side is dead: the return value says so.
        const ssize_t n = ::send(socket, line.data() + done, line.size() - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        done += std::size_t(n);
    }
    return true;
}

/// One line without its end; false at the end of the stream, after an error or a time-out.
bool receiveLine(int socket, std::string& line, int patienceMs) {
    line.clear();
    char buffer[65536];
    while (line.empty() || line.back() != '\n') {
        if (line.size() > kMostAnswer) return false;
        pollfd waiting{socket, POLLIN, 0};
        const int ready = ::poll(&waiting, 1, patienceMs);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return false;
        const ssize_t n = ::recv(socket, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        line.append(buffer, std::size_t(n));
    }
    line.pop_back();
    return true;
}

std::filesystem::path fileOf(const Json& request) {
    return fromBase64(request.at("file").get<std::string>(), "a path");
}

Json answer(const Json& request) {
    if (request.at("what") == "skeleton")
        return createSkeleton(fileOf(request), request.at("spec"));
    return describeSegment(fileOf(request));
}

int serve(int socket) {
    std::string line;
    while (receiveLine(socket, line, -1)) {
        Json reply;
        std::filesystem::path made;
        try {
            const Json request = Json::parse(line);
            reply["ok"] = answer(request);
            if (request.at("what") == "skeleton") made = fileOf(request);
        } catch (const Error& e) {
            reply = {{"error", e.what()}, {"code", int(e.code())}};
        } catch (const std::exception& e) {
            reply = {{"error", e.what()}, {"code", int(Errc::Io)}};
        }
        const std::string text = reply.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
        if (sendLine(socket, text)) continue;
        // Who asked was killed meanwhile, and the next opening may have cleaned up already.
        if (!made.empty()) ::unlink(made.c_str());
        return 1;
    }
    return 0;
}

sigset_t interruptSignals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

/// Starts this program again; the socket is its standard input.
pid_t spawnSelf(int socket) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, socket, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    // Ctrl+C reaches the whole process group; the helper must live until our own stop is orderly.
    const sigset_t blocked = interruptSignals();
    posix_spawnattr_setsigmask(&attributes, &blocked);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    std::string name = "sparsight", command = kSubCommand;
    char* const arguments[] = {name.data(), command.data(), nullptr};
    pid_t pid = -1;
    const int failed =
        ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (failed != 0) errno = failed;
    return failed == 0 ? pid : -1;
}

pid_t forkSelf(int socket) {
    // No other thread may be inside HDF5, whose own lock would stay taken in the child.
    const std::lock_guard quiet(h5Mutex());
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    const sigset_t blocked = interruptSignals();
    ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
    ::dup2(socket, 0);
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, 1);
    ::dup2(null, 2);
    // Above all the descriptor of the writer's lock, which would outlive a killed parent.
    ::close_range(3, ~0u, 0);
    ::_exit(serve(0));
}

}  // namespace

std::mutex& h5Mutex() {
    static std::mutex mutex;
    return mutex;
}

std::optional<int> runSessionHelper(int argc, char** argv) {
    g_registered = true;
    if (argc != 2 || std::strcmp(argv[1], kSubCommand) != 0) return std::nullopt;
    return serve(0);
}

HelperProcess::~HelperProcess() {
    stop();
}

void HelperProcess::start() {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        throw Error(Errc::Resources,
                    std::string("cannot start the HDF5 helper: ") + std::strerror(errno));
    Fd ours(pair[0]);
    const Fd theirs(pair[1]);
    m_pid = g_registered ? spawnSelf(theirs.get()) : forkSelf(theirs.get());
    if (m_pid < 0)
        throw Error(Errc::Resources,
                    std::string("cannot start the HDF5 helper: ") + std::strerror(errno));
    m_socket = std::move(ours);
}

std::string HelperProcess::stop() {
    m_socket.reset();
    if (m_pid < 0) return {};
    ::kill(m_pid, SIGKILL);
    int status = 0;
    while (::waitpid(m_pid, &status, 0) < 0 && errno == EINTR) {
    }
    m_pid = -1;
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        return "it crashed with signal " + std::to_string(WTERMSIG(status));
    return "it gave no answer";
}

bool HelperProcess::killedFromOutside() const {
    // Its end of the socket closes a moment before the process can be waited for.
    for (int i = 0; i < 100; ++i) {
        siginfo_t info{};
        if (::waitid(P_PID, id_t(m_pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid != 0)
            return info.si_code == CLD_KILLED && info.si_status == SIGKILL;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;  // alive, but silent
}

Json HelperProcess::call(const Json& request, const std::filesystem::path& file) {
    const std::lock_guard lock(m_mutex);
    if (m_pid < 0) start();
    const std::string line = request.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
    std::string reply;
    const auto ask = [&] {
        reply.clear();
        return sendLine(m_socket.get(), line) && receiveLine(m_socket.get(), reply, kPatienceMs);
    };
    bool answered = ask();
    if (!answered && killedFromOutside()) {  // out of memory, say: this request is not to blame
        stop();
        start();
        answered = ask();
    }
    if (!answered)
        throw Error(Errc::Io, "the HDF5 helper failed on '" + file.string() + "': " + stop());
    const Json j = Json::parse(reply, nullptr, false);
    if (j.is_object() && j.contains("ok")) return j["ok"];
    stop();  // after a failure HDF5 may be in a state that breaks later calls
    if (!j.is_object() || !j.contains("error"))
        throw Error(Errc::Io, "the HDF5 helper gave no sense on '" + file.string() + "'");
    throw Error(Errc(j.at("code").get<int>()), j.at("error").get<std::string>());
}

void HelperProcess::warm() {
    const std::lock_guard lock(m_mutex);
    if (m_pid < 0) start();
}

Json HelperProcess::skeleton(const std::filesystem::path& file, const Json& spec) {
    return call({{"what", "skeleton"}, {"file", packed(file)}, {"spec", spec}}, file);
}

Json HelperProcess::describe(const std::filesystem::path& file) {
    return call({{"what", "describe"}, {"file", packed(file)}}, file);
}

}  // namespace sparsight::sessions
