# A connection on an asyncio transport: for transports that somebody else made, and systems without epoll.

from mqttcore.engine.connection cimport Connection


cdef class StreamConnection(Connection):
    cdef object transport             # None before connection_made and after the end
    cdef bint is_full                 # the transport asked us to stop writing
    cdef bint is_choked               # not read from until it has read what we wrote
    cdef object when_closed           # called with the connection once the transport is gone; or None
    cdef object linger_handle         # cuts a closed transport whose last bytes nobody reads; or None

    cdef int finish(self) except -1
