#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

namespace sparsight::sessions::test {

/// A running session_writer; what it prints comes through a pipe.
class Writer {
public:
    Writer(const std::vector<std::string>& arguments, const std::string& fault = {}) {
        int in[2], out[2];
        if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) std::abort();
        m_pid = ::fork();
        if (m_pid == 0) {
            ::dup2(in[0], 0);
            ::dup2(out[1], 1);
            if (!fault.empty()) ::setenv("SPARSIGHT_FAULT", fault.c_str(), 1);
            std::vector<char*> argv{const_cast<char*>("session_writer")};
            for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
            argv.push_back(nullptr);
            ::execv(SPARSIGHT_WRITER, argv.data());
            ::_exit(127);
        }
        ::close(in[0]);
        ::close(out[1]);
        m_in = in[1];
        m_out = out[0];
    }
    ~Writer() {
        if (m_pid > 0) kill();
        ::close(m_in);
        ::close(m_out);
    }
    void kill() {
        ::kill(m_pid, SIGKILL);
        wait();
    }
    /// Until it prints this text or ends.
    bool waitFor(const std::string& text) {
        char c;
        while (m_text.find(text) == std::string::npos)
            if (::read(m_out, &c, 1) != 1)
                return false;
            else
                m_text += c;
        return true;
    }
    void say(const std::string& line) { (void)!::write(m_in, line.data(), line.size()); }
    /// Reads to the end; @return exit status, or 1000 + the signal
    int wait() {
        char buffer[4096];
        for (ssize_t n; (n = ::read(m_out, buffer, sizeof buffer)) > 0;)
            m_text.append(buffer, std::size_t(n));
        int status = 0;
        ::waitpid(m_pid, &status, 0);
        m_pid = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    }
    const std::string& text() const { return m_text; }
    /// Layers whose addLayer() had returned.
    std::vector<long> acknowledged() const {
        std::vector<long> layers;
        std::istringstream in(m_text);
        std::string word;
        long n;
        while (in >> word)
            if (word == "stored" && in >> n) layers.push_back(n);
        return layers;
    }

private:
    pid_t m_pid = -1;
    int m_in = -1, m_out = -1;
    std::string m_text;
};

}  // namespace sparsight::sessions::test
