#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>

#include "app/bench/bench.h"
#ifdef SPARSIGHT_HAS_TORCH
#include "core/torch/peer_attention.h"
#endif

extern char** environ;

namespace sparsight::bench {
namespace {

class Child final : public Peer {
public:
    Child(const std::string& command, bool cleanBlas, int threads) : m_threads(threads) {
        int down[2], up[2];
        if (pipe2(down, O_CLOEXEC) != 0 || pipe2(up, O_CLOEXEC) != 0)
            throw Error(Errc::Resources, "bench: no pipe for the peer process");
        std::vector<std::string> settings;
        for (char** e = environ; *e; ++e)
            if (!cleanBlas || std::strncmp(*e, "OPENBLAS_", 9) != 0) settings.emplace_back(*e);
        std::vector<char*> env;
        for (std::string& s : settings) env.push_back(s.data());
        env.push_back(nullptr);
        posix_spawn_file_actions_t files;
        posix_spawn_file_actions_init(&files);
        posix_spawn_file_actions_adddup2(&files, down[0], 0);
        posix_spawn_file_actions_adddup2(&files, up[1], 1);
        std::string shell = "/bin/sh", option = "-c", script = "exec " + command;
        char* argv[] = {shell.data(), option.data(), script.data(), nullptr};
        const int failed = posix_spawn(&m_pid, shell.c_str(), &files, nullptr, argv, env.data());
        posix_spawn_file_actions_destroy(&files);
        close(down[0]);
        close(up[1]);
        m_to = fdopen(down[1], "w");
        m_from = fdopen(up[0], "r");
        if (failed != 0) {
            m_pid = 0;
            throw Error(Errc::Resources, "bench: cannot start the peer " + command);
        }
        m_name = line();
    }
    ~Child() override {
        if (m_to) fclose(m_to);
        if (m_from) fclose(m_from);
        if (m_pid > 0) waitpid(m_pid, nullptr, 0);
    }
    std::string name() const override { return m_name; }
    double attention(const Shape& s) override {
        std::ostringstream text;
        text << s.heads << ' ' << s.kvHeads << ' ' << s.nq << ' ' << s.nk << ' ' << s.d << ' '
             << s.causal << ' ' << m_threads;
        return ask(text.str());
    }
    double ask(const std::string& request) override {
        fputs((request + "\n").c_str(), m_to);
        fflush(m_to);
        return std::strtod(line().c_str(), nullptr);
    }

private:
    std::string line() {
        char text[256];
        if (!fgets(text, sizeof text, m_from))
            throw Error(Errc::Device, "bench: the peer process " + m_name + " has died");
        text[std::strcspn(text, "\n")] = 0;
        return text;
    }
    int m_threads;
    pid_t m_pid = 0;
    FILE *m_to = nullptr, *m_from = nullptr;
    std::string m_name;
};

}  // namespace

std::shared_ptr<Peer> startPeer(const std::string& command, int threads) {
    return std::make_shared<Child>(command, false, threads);
}

std::vector<std::shared_ptr<Peer>> startTorchPeers([[maybe_unused]] int threads) {
    std::vector<std::shared_ptr<Peer>> peers;
#ifdef SPARSIGHT_HAS_TORCH
    char self[4096];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return peers;
    const std::string program = "'" + std::string(self, std::size_t(length)) + "'";
    auto shipped = std::make_shared<Child>(program + " --serve-peer=shipped", true, threads);
    auto fixed = std::make_shared<Child>(program + " --serve-peer=fixed", true, threads);
    if (shipped->name() != fixed->name()) peers.push_back(shipped);
    peers.push_back(fixed);
#endif
    return peers;
}

int servePeer() {
#ifdef SPARSIGHT_HAS_TORCH
    std::cout << torchDescription() << std::endl;
    std::string known, request;
    std::unique_ptr<TorchAttention> attention;
    while (std::getline(std::cin, request)) {
        if (request != known) {
            Index heads = 0, kvHeads = 0, nq = 0, nk = 0, d = 0;
            bool causal = false;
            int threads = 1;
            std::istringstream(request) >> heads >> kvHeads >> nq >> nk >> d >> causal >> threads;
            attention.reset();
            attention = makeTorchAttention(heads, kvHeads, nq, nk, d, causal, threads);
            attention->run();
            known = request;
        }
        std::cout << attention->run() << std::endl;
    }
    return 0;
#else
    return 3;
#endif
}

}  // namespace sparsight::bench
