# What the load generator needs of Linux: sockets, epoll, the monotonic clock.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef extern from "<sys/socket.h>" nogil:
    enum: AF_INET
    enum: SOCK_STREAM
    enum: SOCK_NONBLOCK
    enum: SOCK_CLOEXEC
    enum: SOL_SOCKET
    enum: SO_ERROR
    enum: MSG_NOSIGNAL
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    int socket(int domain, int type, int protocol)
    int connect(int fd, const sockaddr* address, socklen_t size)
    int bind(int fd, const sockaddr* address, socklen_t size)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size)
    Py_ssize_t send(int fd, const void* data, size_t size, int flags)
    Py_ssize_t recv(int fd, void* data, size_t size, int flags)

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_IP
    enum: IPPROTO_TCP
    enum: IP_BIND_ADDRESS_NO_PORT
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    uint32_t htonl(uint32_t value)
    uint16_t htons(uint16_t value)

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_NODELAY

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN
    enum: EPOLLOUT
    enum: EPOLL_CTL_ADD
    enum: EPOLL_CTL_MOD
    enum: EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "<poll.h>" nogil:
    # ppoll() on one descriptor, or none (-1): sleeps shorter than epoll_wait()'s milliseconds
    """
    #include <time.h>
    static inline int mqttcore_poll_ns(int fd, long long ns) {
        struct pollfd one = {fd, POLLIN, 0};
        struct timespec limit = {ns / 1000000000LL, ns % 1000000000LL};
        return ppoll(&one, 1, &limit, NULL);
    }
    """
    int mqttcore_poll_ns(int fd, int64_t ns)

cdef extern from "<sys/prctl.h>" nogil:
    enum: PR_SET_TIMERSLACK
    int prctl(int option, unsigned long value)


cdef inline int64_t now_ns() noexcept nogil:
    # The monotonic clock; a vDSO call, no system call.
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t>moment.tv_sec * 1000000000 + moment.tv_nsec
