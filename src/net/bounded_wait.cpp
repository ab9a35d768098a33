#include "net/bounded_wait.h"

#include <fcntl.h>

#include <cerrno>

#include "base/unique_fd.h"

namespace pgxc::net {

std::error_code wait_on_copy(asio::posix::stream_descriptor& descriptor, int fd) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) return {errno, std::system_category()};
    std::error_code failed;
    descriptor.assign(copy.get(), failed);
    if (!failed) (void)copy.release();
    return failed;
}

}  // namespace pgxc::net
