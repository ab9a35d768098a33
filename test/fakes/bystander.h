#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "base/unique_fd.h"

namespace pgxc::fakes {

/// A process that does nothing. It ends with this object, or with the test's process.
class Bystander {
  public:
    Bystander() {
        int ends[2];
        if (::pipe(ends) != 0) return;
        pid_ = ::fork();
        if (pid_ == 0) {
            char byte;
            ::close(ends[1]);
            (void)!::read(ends[0], &byte, 1);
            ::_exit(0);
        }
        ::close(ends[0]);
        life_line_.reset(ends[1]);
    }
    ~Bystander() { end(); }
    Bystander(const Bystander&) = delete;
    Bystander& operator=(const Bystander&) = delete;

    [[nodiscard]] pid_t pid() const { return pid_; }
    void end() {
        if (pid_ <= 0) return;
        (void)::kill(pid_, SIGKILL);
        (void)::waitpid(std::exchange(pid_, -1), nullptr, 0);
    }

  private:
    pid_t pid_ = -1;
    UniqueFd life_line_;
};

}  // namespace pgxc::fakes
