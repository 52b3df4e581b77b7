# A connection on an asyncio transport: for transports that somebody else made, and systems without epoll.

from libc.stdint cimport uint8_t

from mqttcore.engine.connection cimport Connection
from mqttcore.net.gate cimport Gate
from mqttcore.net.websocket cimport websocket_t


cdef class StreamConnection(Connection):
    cdef Gate gate                    # PROXY header and TLS; None: the listener has neither
    cdef object pipes                 # TlsPipes that its gate uses
    cdef object transport             # None before connection_made and after the end
    cdef bint is_full                 # the transport asked us to stop writing
    cdef bint is_choked               # not read from until it has read what we wrote
    cdef bint has_tls                 # the transport's own, besides the gate's
    cdef object look_handle           # looks at the buffer of such a transport again; or None
    cdef object when_closed           # called with the connection once the transport is gone; or None
    cdef object linger_handle         # cuts a closed transport whose last bytes nobody reads; or None

    cdef bint greet(self) except -1
    cdef bint is_sealed(self) noexcept
    cdef int write_sealed(self, bint is_last) except -1
    # Gives the engine what came, where there is no gate.
    cdef int take(self, const uint8_t* data, Py_ssize_t size) except -1
    # All that is to be written, as it goes over the network without a gate; empty: nothing.
    cdef bytes due(self)
    # Writes what is pending to the transport, full or not.
    cdef int write_due(self, bint is_last) except -1


cdef class WebSocketStream(StreamConnection):
    cdef websocket_t ws
    cdef object tls_info              # of the transport's TLS, or the proxy's, or None
    cdef object proxy_info            # ProxyInfo, or None
