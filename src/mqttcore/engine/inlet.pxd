# The receiving half of a connection: bytes into packets, and when not to read.
#
# While the connection is ADMITTING (or paused) nothing is parsed: what arrives is kept in rest, and the driver stops
# reading.

from libc.stdint cimport uint8_t, uint32_t

from mqttcore.engine.network_connection cimport NetworkConnection
from mqttcore.engine.rates cimport rates_t


cdef enum:
    PAUSE_ADMITTING = 1       # authentication is under way elsewhere
    PAUSE_CONGESTED = 2       # a queue it publishes to is full
    PAUSE_RATE = 4            # it sent too much
    PAUSE_SUBSCRIBE = 8       # a plugin decides a SUBSCRIBE
    PAUSE_STORE = 16          # too much of what came is not safe yet


cdef class Inlet(NetworkConnection):
    cdef uint8_t* rest                # start of a packet whose end has not come yet
    cdef uint32_t rest_size
    cdef uint32_t rest_cap
    cdef rates_t* rates               # NULL: it may send as fast as it can
    cdef uint8_t pauses               # PAUSE_*: why it is not read

    # Takes what the network gave; parses in place. Peer faults close the connection and do not raise.
    cdef int feed(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int keep_rest(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int drop_rest(self, Py_ssize_t used) except -1
    cdef int complete_rest(self, const uint8_t** data, Py_ssize_t* size) except -1
    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    # Connection implements: one whole packet, and what came first on the connection.
    cdef int dispatch(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_first(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    # Not to be read for a reason (PAUSE_*), and for one reason less; without any, what was kept is parsed.
    cdef int pause(self, uint8_t reason) except -1
    cdef int resume(self, uint8_t reason) except -1
    cdef int set_paused(self, bint paused) except -1
    # Drivers override: start or stop reading from the network.
    cdef int paused_changed(self) except -1
    # Counts one PUBLISH against the rates; True: the connection was closed for it.
    cdef bint is_too_fast(self, Py_ssize_t size) except -1
    # Bounds of this connection: NULL with none.
    cdef int set_rates(self, double messages_per_s, double bytes_per_s) except -1
