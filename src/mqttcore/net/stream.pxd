# A connection on an asyncio transport: for transports that somebody else made, and systems without epoll.

from libc.stdint cimport uint8_t

from mqttcore.engine.connection cimport Connection
from mqttcore.net.websocket cimport websocket_t


cdef class StreamConnection(Connection):
    cdef object transport             # None before connection_made and after the end
    cdef bint is_full                 # the transport asked us to stop writing
    cdef bint is_choked               # not read from until it has read what we wrote
    cdef object when_closed           # called with the connection once the transport is gone; or None
    cdef object linger_handle         # cuts a closed transport whose last bytes nobody reads; or None

    # Gives the engine what came.
    cdef int take(self, const uint8_t* data, Py_ssize_t size) except -1
    # All that is to be written, as it goes over the network; empty: nothing.
    cdef bytes due(self)


cdef class WebSocketStream(StreamConnection):
    cdef websocket_t ws
