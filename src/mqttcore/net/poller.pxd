# Sockets driven by an epoll of our own, which hangs as one readable descriptor in the event loop.
#
# One wake-up of the loop serves every socket that is ready: read all, then write all that has output. So a message costs
# no Python object and no callback of the loop, under uvloop and under plain asyncio alike.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mqttcore.engine.connection cimport Connection
from mqttcore.engine.engine cimport Engine
from mqttcore.engine.outbuf cimport iov_t
from mqttcore.net.channel cimport TlsPipes
from mqttcore.net.gate cimport Gate
from mqttcore.net.websocket cimport websocket_t


cdef class SocketConnection(Connection):
    cdef Poller poller
    cdef Gate gate                    # PROXY header and TLS; None: the listener has neither
    cdef int fd                       # -1: closed
    cdef uint8_t is_gated             # all bytes go through the gate
    cdef uint8_t wants_write          # EPOLLOUT is on
    cdef uint8_t reads                # EPOLLIN is on
    cdef uint8_t is_choked            # not read from until it has read what we wrote
    cdef uint8_t is_shut              # we have said our last; read until the peer closes
    cdef uint8_t address_size
    cdef uint8_t address_bytes[28]    # struct sockaddr_in or sockaddr_in6

    cdef int readable(self) except -1
    cdef int gate_readable(self) except -1
    cdef int interest_changed(self) except -1
    cdef void close_fd(self) noexcept
    cdef void drop(self) noexcept
    cdef bint write_sealed(self) except -1
    # Gives the kernel *count* pieces, *total* bytes in all; how many it took. Less than all: it says when it takes more.
    # -1 and no exception: the connection was dropped.
    cdef Py_ssize_t transmit(self, iov_t* iov, int count, size_t* total) except? -1
    # Ends a choke.
    cdef int read_again(self) except -1
    # Says that we write no more; the peer's close is waited for.
    cdef int shut(self) except -1
    cdef int linger(self) except -1


cdef class WebSocketConnection(SocketConnection):
    cdef websocket_t ws
    cdef object proxy_info            # ProxyInfo, or None
    cdef object tls_info              # of the TLS that the proxy ended, or None


cdef class Poller:
    cdef Engine engine
    cdef object loop
    cdef int epfd
    cdef uint8_t* buffer              # shared by all reads: nothing borrows it beyond feed()
    cdef PyObject** table             # fd -> SocketConnection (one reference each)
    cdef Py_ssize_t table_size
    cdef dict listeners               # fd -> listener object
    cdef TlsPipes pipes               # of all TLS connections; None until the first listener with a gate
    cdef int handshakes_left          # steps of handshakes that this turn may still take
    cdef dict suspended               # fd -> listener object: not accepted on until the next turn()
    cdef dict lingering               # fd -> ms until when a closed connection may still write; oldest first
    cdef Py_ssize_t lingering_maximum
    cdef readonly uint64_t lingering_cut      # that were closed before their time, to make room
    cdef object on_drained            # called when lingering becomes empty, or None
    cdef readonly Py_ssize_t open_sockets
    cdef bint is_watching
    cdef bint is_busy                 # the last turn served many sockets
    cdef int64_t turn_ended_us
    cdef uint32_t gather_us           # see gather()
    cdef readonly uint64_t gathered   # turns that waited for more packets

    cdef int drained(self) except -1
    # Closes the oldest of too many lingering connections; not while events of theirs may be at hand.
    cdef int cut_lingering(self) except -1
    cdef int accept_batch(self, int fd, object listener) except -1
    cdef bint has_room(self, object listener) except -1
    cdef int suspend(self, int fd, object listener, str reason) except -1
    # Tells traces of addresses, who cannot know whom it meets, that a listener accepts nobody.
    cdef int tell_pause(self, object listener, str reason) except -1
    # Serves *connection*, which nothing else knows yet, on *fd*; 0: it could not be.
    cdef bint enroll(self, SocketConnection connection, int fd, const uint8_t* address, uint32_t size) except -1
    # As enroll, for a socket object, which is detached.
    cdef bint enroll_socket(self, SocketConnection connection, object sock) except -1
    cdef bint greet(self, SocketConnection connection, object listener) except -1
    # Closes an accepted socket that is one too many. address: struct sockaddr, of which accept() gave *size* bytes.
    cdef int turn_away(self, int fd, const uint8_t* address, uint32_t size, object listener, str reason) except -1
    cdef void gather(self) noexcept
    cdef int run(self) except -1
