"""Sockets on an epoll of our own; poller.pxd says why."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from mqttcore.codec.codes cimport RC_UNSPECIFIED_ERROR
from mqttcore.engine.connection cimport Connection
from mqttcore.engine.engine cimport Engine
from mqttcore.engine.network_connection cimport STATE_CLOSED
from mqttcore.engine.outbuf cimport MAX_IOV, iov_t, out_clear, out_consume, out_gather
from mqttcore.engine.watch cimport WATCH_ADDRESS
from mqttcore.net.channel cimport TlsPipes
from mqttcore.net.gate cimport GATE_HANDSHAKE, GATE_OPEN, Gate, is_welcome, new_gate
from mqttcore.net.websocket cimport (
    WS_CLOSED_BY_PEER,
    WS_IOV,
    ws_consume,
    ws_free,
    ws_gather,
    ws_init,
    ws_receive,
)

import logging
import os
import socket
import sys

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    enum: SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_PEEK, AF_INET, AF_INET6
    struct sockaddr:
        pass
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ctypedef unsigned int socklen_t
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size)
    int getpeername(int fd, sockaddr* addr, socklen_t* size)
    int accept4(int fd, sockaddr* addr, socklen_t* size, int flags)
    Py_ssize_t recv(int fd, void* buf, size_t size, int flags)
    Py_ssize_t send(int fd, const void* buf, size_t size, int flags)
    Py_ssize_t sendmsg(int fd, const msghdr* msg, int flags)

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_USER_TIMEOUT

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "<sys/socket.h>" nogil:
    enum: SHUT_WR
    int shutdown(int fd, int how)

cdef extern from "<time.h>" nogil:
    enum: CLOCK_MONOTONIC
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* ts)
    int nanosleep(const timespec* ts, timespec* left)

log = logging.getLogger("mqttcore.net")

cdef enum:
    READ_SIZE = 131072        # bytes of one read
    MAX_EVENTS = 512          # sockets served per turn; the rest wait for the next, so the loop gets its share
    CHOKE = 2                 # times the high-water mark of unread answers from which on we do not read their receiver
    BUSY_SOCKETS = 3          # ready in one turn: more than chance would bring
    RECENT_US = 500
    LINGERING_MAXIMUM = 10000
    LINGER_MS = 2000          # a closed connection's last bytes, and the peer's close, may take this long
    ACCEPT_PAUSE_MS = 500     # without descriptors
    TELL_PAUSE_MS = 1000      # how often traces are told that nobody is accepted
    HANDSHAKE_STEPS = 8       # in one turn: each costs as much as hundreds of messages
    PATIENCE_MS = 1000        # a handshake that was silent for less does not have to make room for another


cdef inline int64_t monotonic_us() noexcept:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return <int64_t>ts.tv_sec * 1000000 + ts.tv_nsec // 1000


cdef inline int64_t monotonic_ms() noexcept:
    return monotonic_us() // 1000


cdef object address_of(const uint8_t* raw, uint32_t size):
    # (host, port) of a struct sockaddr; None for one without.
    cdef int family = int.from_bytes(raw[:min(size, <uint32_t>2)], sys.byteorder)
    if family == AF_INET and size >= 8:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
    if family == AF_INET6 and size >= 24:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big")
    return None


cdef class SocketConnection(Connection):
    """A connection on a non-blocking stream socket that the poller owns."""

    cdef object address(self):
        if self.given_peer is not None:
            return self.given_peer    # a PROXY header knew better
        return address_of(self.address_bytes, self.address_size)

    @property
    def tls(self) -> object:
        """See Connection.tls."""
        return None if self.gate is None else self.gate.tls_info

    @property
    def proxy(self) -> object:
        """See Connection.proxy."""
        return None if self.gate is None else self.gate.proxy

    cdef int keep_alive_changed(self) except -1:
        # What we send and nobody acknowledges says the same as silence, and is noticed while we are not reading, too.
        cdef int ms
        if self.keep_alive_s and self.fd >= 0:
            ms = min(<int64_t>self.keep_alive_s * 1500, <int64_t>0x7FFFFFFF)
            setsockopt(self.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms))       # Unix sockets have none
        return 0

    cdef int readable(self) except -1:
        cdef Py_ssize_t n
        if self.is_gated:
            return self.gate_readable()
        n = recv(self.fd, self.poller.buffer, READ_SIZE, 0)
        if n > 0:
            return self.feed(self.poller.buffer, n)
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        self.was_reset = n < 0
        self.drop()
        return 0

    cdef int gate_readable(self) except -1:
        cdef Gate gate = self.gate
        cdef Py_ssize_t n
        if gate.stage == GATE_HANDSHAKE and self.state != STATE_CLOSED:
            if self.poller.handshakes_left <= 0:
                return 0              # stays readable: the next turn comes back to it
            self.poller.handshakes_left -= 1
        n = recv(self.fd, self.poller.buffer, READ_SIZE, 0)
        if n > 0:
            if self.state == STATE_CLOSED:
                return 0
            if not gate.take(self, self.poller.buffer, n) and self.state != STATE_CLOSED:
                if gate.stage != GATE_OPEN:
                    self.close_reason = RC_UNSPECIFIED_ERROR      # lingers, so that an alert arrives
                self.lost()
            if gate.stage == GATE_OPEN and gate.channel is None:
                self.is_gated = False
            if gate.unsent is not None:
                self.mark_dirty()
            return 0
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        self.was_reset = n < 0
        self.drop()
        return 0

    cdef str awaited(self):
        return None if self.gate is None or self.gate.stage == GATE_OPEN else self.gate.awaited()

    cdef void drop(self) noexcept:
        # The network connection is gone: nothing more can be written.
        self.lost()
        self.close_fd()

    cdef int give_up(self) except -1:
        self.drop()
        return 0

    cdef int paused_changed(self) except -1:
        return self.interest_changed()

    cdef int interest_changed(self) except -1:
        cdef epoll_event event
        cdef bint reads = self.is_shut or not self.is_paused and not self.is_choked and self.state != STATE_CLOSED
        if self.fd < 0:
            return 0
        self.reads = reads
        event.events = (<uint32_t>EPOLLIN if reads else 0) | (<uint32_t>EPOLLOUT if self.wants_write else 0)
        event.data.fd = self.fd
        epoll_ctl(self.poller.epfd, EPOLL_CTL_MOD, self.fd, &event)
        return 0

    cdef Py_ssize_t transmit(self, iov_t* iov, int count, size_t* total) except? -1:
        cdef msghdr message
        cdef Py_ssize_t n
        cdef int i
        total[0] = 0
        for i in range(count):
            total[0] += iov[i].size
        while True:
            if count == 1:
                n = send(self.fd, iov[0].base, total[0], MSG_NOSIGNAL)
            else:
                memset(&message, 0, sizeof(msghdr))
                message.msg_iov = <iovec*>iov
                message.msg_iovlen = count
                n = sendmsg(self.fd, &message, MSG_NOSIGNAL)
            if n >= 0 or errno != EINTR:
                break
        if n < 0:
            if errno != EAGAIN:
                self.was_reset = True
                self.drop()
                return -1
            n = 0
        if <size_t>n < total[0] and not self.wants_write:
            self.wants_write = True
            self.interest_changed()
        return n

    cdef bint write_out(self) except -1:
        # Writes what the kernel takes; True when nothing is left.
        cdef iov_t iov[MAX_IOV]
        cdef size_t total
        cdef Py_ssize_t n
        if self.is_gated:
            return self.write_sealed()
        while self.out.pending:
            n = self.transmit(iov, out_gather(&self.out, iov, MAX_IOV), &total)
            if n < 0:
                return True
            out_consume(&self.out, n)
            self.core.counters.bytes_out += n
            if <size_t>n < total:
                return False
        self.read_again()
        return True

    cdef int read_again(self) except -1:
        # It has read what we wrote.
        if self.is_choked:
            self.is_choked = False
            self.interest_changed()
        return 0

    cdef bint write_sealed(self) except -1:
        # The same through the gate: what was sealed goes out before more is.
        cdef Gate gate = self.gate
        cdef iov_t piece
        cdef size_t total
        cdef Py_ssize_t n
        while gate.prepare(&self.out, self.state == STATE_CLOSED):
            piece.base = PyBytes_AS_STRING(gate.unsent) + gate.unsent_at
            piece.size = PyBytes_GET_SIZE(gate.unsent) - gate.unsent_at
            n = self.transmit(&piece, 1, &total)
            if n < 0:
                return True
            gate.sent(n)
            self.core.counters.bytes_out += n
            if <size_t>n < total:
                return False
        self.read_again()
        return True

    cdef int flush(self) except -1:
        cdef int64_t unread
        if self.fd < 0 or self.cork:
            return 0
        if self.wants_write:
            self.linger()
            unread = self.out.end - self.out.start + (0 if self.gate is None else self.gate.unsent_size())
            if not self.is_choked and unread >= CHOKE * <int64_t>self.core.limits.output_high_water_bytes:
                # It sends and does not read: what we have to answer may not grow without bounds.
                self.is_choked = True
                self.interest_changed()
            return 0                  # the kernel is full; it says when it is not
        self.drain()
        self.linger()
        return 0

    cdef int finish(self) except -1:
        # Everything is written. Where we closed, the peer may still be sending: closing with its bytes unread resets the
        # connection and takes our last packet from it. So it hears the end first, and is read until it closes too.
        if self.fd < 0:
            return 0
        if self.close_reason < 0:
            self.close_fd()
        elif not self.is_shut:
            self.shut()
        return 0

    cdef int shut(self) except -1:
        self.is_shut = True
        shutdown(self.fd, SHUT_WR)
        self.interest_changed()
        return self.linger()

    cdef int linger(self) except -1:
        # The last bytes of a closed connection get a little time, not all the time the peer takes to read.
        if self.state == STATE_CLOSED and self.fd >= 0 and self.fd not in self.poller.lingering:
            self.poller.lingering[self.fd] = self.core.now_ms + LINGER_MS
        return 0

    cdef void close_fd(self) noexcept:
        if self.fd < 0:
            return
        close(self.fd)                # takes it out of the epoll as well
        self.poller.table[self.fd] = NULL
        self.poller.open_sockets -= 1
        out_clear(&self.out)
        if self.poller.lingering.pop(self.fd, None) is not None and not self.poller.lingering:
            self.poller.drained()
        self.fd = -1
        if self.gate is not None:
            self.gate.leave(self)
            self.gate.unsent = None
        if self.is_counted:
            self.is_counted = False
            self.listener.admission.leave(self.address())
        if self.listener is not None:
            self.listener.connections -= 1
        Py_DECREF(self)


cdef class WebSocketConnection(SocketConnection):
    """MQTT in WebSocket frames on a socket whose HTTP request somebody else has read."""

    def __dealloc__(self):
        ws_free(&self.ws)

    @property
    def tls(self) -> object:
        """See Connection.tls."""
        return self.tls_info

    @property
    def proxy(self) -> object:
        """See Connection.proxy."""
        return self.proxy_info

    cdef int readable(self) except -1:
        cdef Py_ssize_t n = recv(self.fd, self.poller.buffer, READ_SIZE, 0)
        if n > 0:
            ws_receive(&self.ws, self, self.poller.buffer, n)
            if self.is_shut and self.ws.state == WS_CLOSED_BY_PEER:
                self.close_fd()       # both have said Close
            return 0
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        self.drop()
        return 0

    cdef bint write_out(self) except -1:
        # As SocketConnection's, with a frame's head in front of all that is pending.
        cdef iov_t iov[WS_IOV]
        cdef size_t total
        cdef Py_ssize_t n
        cdef uint32_t pending
        cdef int count
        while True:
            count = ws_gather(&self.ws, &self.out, iov, self.state == STATE_CLOSED, self.close_reason)
            if count == 0:
                self.read_again()
                return True
            n = self.transmit(iov, count, &total)
            if n < 0:
                return True
            pending = self.out.pending
            ws_consume(&self.ws, &self.out, n)
            self.core.counters.bytes_out += pending - self.out.pending
            if <size_t>n < total:
                return False

    cdef int finish(self) except -1:
        # Close is written. The peer closes too, or has: closing with its bytes unread would take ours from it.
        if self.fd < 0:
            return 0
        if self.ws.state == WS_CLOSED_BY_PEER:
            self.close_fd()
        elif not self.is_shut:
            self.shut()
        return 0


cdef class Poller:
    """All sockets of one broker. loop: an asyncio event loop with add_reader().

    gather_us: how long a turn that follows closely on a busy one lets packets gather; 0: not at all.
    lingering_maximum: closed connections whose peers have not closed as well. Listener objects are BoundListeners.
    """

    def __cinit__(self):
        self.epfd = -1

    def __init__(
        self, engine: Engine, loop: object, *, gather_us: int = 0, lingering_maximum: int = LINGERING_MAXIMUM
    ) -> None:
        self.gather_us = gather_us
        self.lingering_maximum = lingering_maximum
        self.engine = engine
        self.loop = loop
        self.listeners = {}
        self.lingering = {}
        self.suspended = {}
        self.buffer = <uint8_t*>malloc(READ_SIZE)
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.buffer == NULL or self.epfd < 0:
            raise OSError(errno, os.strerror(errno))
        loop.add_reader(self.epfd, self.on_ready)
        self.is_watching = True

    def __dealloc__(self):
        free(self.buffer)
        free(self.table)
        if self.epfd >= 0:
            close(self.epfd)

    def set_drained(self, callback: object) -> None:
        """Have *callback* called whenever the last bytes of all closed connections are written or given up."""
        self.on_drained = callback

    cdef int drained(self) except -1:
        if self.on_drained is not None:
            self.on_drained()
        return 0

    def add_listener(self, sock: object, listener: object) -> None:
        """Accept on a listening, non-blocking socket; the caller keeps and closes it."""
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.fd = sock.fileno()
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, event.data.fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        self.listeners[sock.fileno()] = listener

    def remove_listener(self, sock: object) -> None:
        """Stop accepting on a socket; open connections stay."""
        cdef epoll_event event
        self.suspended.pop(sock.fileno(), None)
        if self.listeners.pop(sock.fileno(), None) is not None:
            epoll_ctl(self.epfd, EPOLL_CTL_DEL, sock.fileno(), &event)

    def connections_of(self, listener: object) -> list:
        """Return the connections of a listener that are not closed. Looks at every descriptor there was."""
        cdef Py_ssize_t fd
        cdef SocketConnection connection
        cdef list found = []
        for fd in range(self.table_size):
            if self.table[fd] != NULL:
                connection = <SocketConnection>self.table[fd]
                if connection.listener is listener and connection.state != STATE_CLOSED:
                    found.append(connection)
        return found

    def adopt(self, sock: object, listener: object) -> None:
        """Take over an accepted stream socket; *sock* is detached from its Python object."""
        cdef SocketConnection connection = SocketConnection(self.engine, listener)
        if self.enroll_socket(connection, sock) and listener is not None and not self.greet(connection, listener):
            connection.drop()

    def adopt_websocket(
        self,
        sock: object,
        listener: object,
        *,
        upgraded: bytes,
        received: bytes,
        message_bytes_maximum: int,
        pings_per_s_maximum: int,
        is_counted: bool = False,
        proxy: object = None,
        tls_info: object = None,
        certified_name: object = None,
    ) -> None:
        """Take over a stream socket whose request to upgrade was read; *sock* is detached from its Python object.

        upgraded: the HTTP answer that agrees, written first. received: what was read of the socket beyond the request.
        is_counted: its address has been admitted. proxy, tls_info: what a PROXY header said, of its client and of the
        TLS in front of the proxy. certified_name: whom a certificate authenticates.
        """
        cdef WebSocketConnection connection = WebSocketConnection(self.engine, listener)
        cdef bytearray unmasked = bytearray(received)     # not the poller's buffer: a read may be under way
        ws_init(&connection.ws, upgraded, message_bytes_maximum, pings_per_s_maximum)
        connection.is_counted = is_counted
        connection.proxy_info = proxy
        connection.tls_info = tls_info
        connection.certified_name = certified_name
        if proxy is not None and proxy.source is not None:
            connection.given_peer = proxy.source
        if not self.enroll_socket(connection, sock):
            return
        self.engine.now_ms = monotonic_ms()
        connection.address_known()
        ws_receive(&connection.ws, connection, <uint8_t*>PyByteArray_AS_STRING(unmasked), len(unmasked))
        connection.mark_dirty()
        self.engine.wake()

    cdef bint enroll_socket(self, SocketConnection connection, object sock) except -1:
        cdef uint8_t address[28]
        cdef socklen_t size = sizeof(address)
        cdef int fd
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = sock.detach()
        if getpeername(fd, <sockaddr*>address, &size) < 0:
            size = 0
        return self.enroll(connection, fd, address, size)

    cdef bint enroll(self, SocketConnection connection, int fd, const uint8_t* address, uint32_t size) except -1:
        cdef epoll_event event
        cdef Py_ssize_t wanted
        cdef PyObject** grown
        connection.fd = -1
        if fd >= self.table_size:
            wanted = max(<Py_ssize_t>1024, <Py_ssize_t>fd * 2)
            grown = <PyObject**>realloc(self.table, wanted * sizeof(PyObject*))
            if grown == NULL:
                close(fd)
                raise MemoryError
            memset(grown + self.table_size, 0, (wanted - self.table_size) * sizeof(PyObject*))
            self.table = grown
            self.table_size = wanted
        event.events = EPOLLIN
        event.data.fd = fd
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &event) < 0:
            close(fd)
            connection.lost()
            return False
        connection.poller = self
        connection.fd = fd
        connection.reads = True
        if size > sizeof(connection.address_bytes):
            size = 0
        connection.address_size = size
        memcpy(connection.address_bytes, address, size)
        Py_INCREF(connection)
        self.table[fd] = <PyObject*>connection
        self.open_sockets += 1
        if connection.listener is not None:
            connection.listener.connections += 1
        return True

    cdef bint greet(self, SocketConnection connection, object listener) except -1:
        # What the listener wants of a new connection before its first byte; False: nothing to do with it.
        if not is_welcome(connection, listener):
            return False
        if listener.is_gated:
            if self.pipes is None:
                self.pipes = TlsPipes()
            connection.gate = new_gate(connection, listener, self.pipes)
            connection.is_gated = True
        return True

    cdef bint has_room(self, object listener) except -1:
        # Whether one more handshake may begin. Silent ones make room; those under way do not, so that a crowd of honest
        # clients waits in the kernel instead of pushing each other out.
        cdef SocketConnection oldest
        cdef uint8_t waiting
        if self.engine.is_overloaded:
            return False
        if len(listener.handshaking) < listener.handshakes_maximum:
            return True
        oldest = next(iter(listener.handshaking.values()))
        if self.engine.now_ms - oldest.gate.heard_ms < PATIENCE_MS or recv(oldest.fd, &waiting, 1, MSG_PEEK) > 0:
            return False              # it, or we, are at work
        listener.handshakes_evicted += 1
        oldest.failed_below("made room for a newer handshake")
        oldest.drop()
        return True

    cdef int suspend(self, int fd, object listener, str reason) except -1:
        # Level-triggered, a listener we do not accept on would wake us for ever.
        cdef epoll_event event
        epoll_ctl(self.epfd, EPOLL_CTL_DEL, fd, &event)
        self.suspended[fd] = listener
        return self.tell_pause(listener, reason)

    cdef int tell_pause(self, object listener, str reason) except -1:
        # Of turns that follow each other one is told a second.
        if self.engine.tracer.subjects & WATCH_ADDRESS and self.engine.now_ms - listener.pause_told_ms >= TELL_PAUSE_MS:
            listener.pause_told_ms = self.engine.now_ms
            self.engine.tracer.accepting_paused(listener.name, reason)
        return 0

    cdef int accept_batch(self, int fd, object listener) except -1:
        cdef uint8_t address[28]
        cdef socklen_t size
        cdef int accepted, _
        cdef SocketConnection connection
        cdef int most = listener.accept_per_turn
        cdef int limit = listener.max_connections
        cdef bint is_gated = listener.is_gated
        cdef bint is_rated = listener.admission is not None and listener.admission.settings.connection_rate
        if is_gated and most > HANDSHAKE_STEPS:
            most = HANDSHAKE_STEPS    # to begin a TLS session takes time as well
        for _ in range(most):
            if is_gated and not self.has_room(listener):
                return self.suspend(fd, listener, "overloaded" if self.engine.is_overloaded else "handshakes_maximum")
            size = sizeof(address)
            accepted = accept4(fd, <sockaddr*>address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if accepted < 0:
                if errno == ECONNABORTED or errno == EINTR:
                    continue
                if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                    self.pause_accepting(fd, listener)
                return 0
            if limit and listener.connections >= limit:
                listener.refused += 1
                self.turn_away(accepted, address, size, listener, "max_connections")
                continue
            if is_rated and not listener.admission.take(self.engine.now_ms):
                self.turn_away(accepted, address, size, listener, "connection_rate")
                continue
            connection = SocketConnection(self.engine, listener)
            if self.enroll(connection, accepted, address, size) and not self.greet(connection, listener):
                connection.drop()
        return 0

    cdef int turn_away(self, int fd, const uint8_t* address, uint32_t size, object listener, str reason) except -1:
        close(fd)
        if self.engine.tracer.subjects & WATCH_ADDRESS:
            self.engine.trace_failure(address_of(address, min(size, <uint32_t>28)), listener.name, reason)
        return 0

    def pause_accepting(self, fd: int, listener: object) -> None:
        """Leave a listener alone for a while: the process is out of descriptors or memory."""
        cdef epoll_event event
        reason = os.strerror(errno)
        log.error("listener %s: cannot accept: %s; trying again in %d ms", listener.name, reason, ACCEPT_PAUSE_MS)
        listener.accept_paused += 1
        self.tell_pause(listener, reason)
        epoll_ctl(self.epfd, EPOLL_CTL_DEL, fd, &event)
        self.loop.call_later(ACCEPT_PAUSE_MS / 1000, self.resume_accepting, fd)

    def resume_accepting(self, fd: int) -> None:
        """Accept again after a pause, unless the listener is gone."""
        cdef epoll_event event
        if fd in self.listeners and self.epfd >= 0:
            event.events = EPOLLIN
            event.data.fd = fd
            epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &event)

    @property
    def lingering_count(self) -> int:
        """Closed connections whose last bytes are still on their way."""
        return len(self.lingering)

    def on_ready(self) -> None:
        """Serve every socket that is ready; the event loop's callback."""
        self.run()

    cdef void gather(self) noexcept:
        # Under load a turn that starts at the first packet finds one packet per socket; a moment later it finds several,
        # for the same system calls. So a turn that follows closely on a busy one waits that moment; a quiet broker never.
        cdef timespec ts
        if self.is_busy and self.gather_us and monotonic_us() - self.turn_ended_us < RECENT_US:
            self.gathered += 1
            ts.tv_sec = 0
            ts.tv_nsec = self.gather_us * 1000
            with nogil:
                nanosleep(&ts, NULL)

    cdef int run(self) except -1:
        cdef epoll_event events[MAX_EVENTS]
        cdef SocketConnection connection
        cdef int n, i, fd
        cdef object listener
        self.gather()
        n = epoll_wait(self.epfd, events, MAX_EVENTS, 0)
        self.is_busy = n >= BUSY_SOCKETS
        self.engine.now_ms = monotonic_ms()
        self.handshakes_left = HANDSHAKE_STEPS
        for i in range(n):
            fd = events[i].data.fd
            if fd < self.table_size and self.table[fd] != NULL:
                connection = <SocketConnection>self.table[fd]
                try:
                    if events[i].events & <uint32_t>EPOLLOUT and connection.wants_write:
                        connection.wants_write = False
                        connection.interest_changed()
                        connection.mark_dirty()
                    if events[i].events & <uint32_t>EPOLLIN and connection.reads:
                        connection.readable()
                    elif events[i].events & (<uint32_t>EPOLLERR | <uint32_t>EPOLLHUP):
                        connection.was_reset = True
                        connection.drop()
                except Exception:
                    log.exception("serving client %s at %s: closed", connection.client_id, connection.peer)
                    connection.drop()
            else:
                listener = self.listeners.get(fd)
                if listener is not None:
                    self.accept_batch(fd, listener)
        self.engine.flush_dirty()
        self.cut_lingering()
        if self.engine.dirty != NULL:
            self.engine.wake()        # the loop comes first, then we go on
        self.turn_ended_us = monotonic_us()
        return 0

    def turn(self) -> None:
        """Advance the engine's clock, write what came of it, and end connections that lingered too long."""
        cdef int fd
        self.engine.turn(monotonic_ms())
        self.engine.flush_dirty()
        if self.suspended:
            for fd in list(self.suspended):
                del self.suspended[fd]
                self.resume_accepting(fd)
        if self.lingering:
            for fd, due_ms in list(self.lingering.items()):
                if due_ms <= self.engine.now_ms:
                    (<SocketConnection>self.table[fd]).close_fd()
        if self.engine.dirty != NULL:
            self.engine.wake()

    def flush(self) -> None:
        """Write what is pending; the callback of Engine.set_wake, one turn later."""
        self.engine.now_ms = monotonic_ms()
        self.engine.flush_dirty()
        self.cut_lingering()
        if self.engine.dirty != NULL:
            self.engine.wake()

    cdef int cut_lingering(self) except -1:
        cdef int fd
        while len(self.lingering) > self.lingering_maximum:
            fd = next(iter(self.lingering))
            self.lingering_cut += 1
            (<SocketConnection>self.table[fd]).close_fd()
        return 0

    def metrics(self) -> dict:
        """Return counters and gauges; the keys are stable."""
        return {"connections_lingering": len(self.lingering), "connections_lingering_cut": self.lingering_cut}

    def close(self) -> None:
        """Cut every connection and leave the loop. Wills of those still connected are published first."""
        cdef Py_ssize_t fd
        cdef SocketConnection connection
        if not self.is_watching:
            return
        for fd in range(self.table_size):
            if self.table[fd] != NULL:
                connection = <SocketConnection>self.table[fd]
                connection.drop()
        self.loop.remove_reader(self.epfd)
        self.is_watching = False
        close(self.epfd)
        self.epfd = -1
        self.listeners.clear()
