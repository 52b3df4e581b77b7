# What stands between a stream socket and its connection: first a PROXY header, then TLS; each where the listener has it.
#
#   PROXY --> HANDSHAKE --> OPEN         a listener without one of them begins, or ends, in the next
#
# Drivers give it what they read and send what it has; plaintext goes to Connection.feed().

from libc.stdint cimport int64_t, uint8_t

from mqttcore.engine.connection cimport Connection
from mqttcore.engine.outbuf cimport outbuf_t
from mqttcore.net.channel cimport TlsChannel, TlsPipes


cdef enum:
    GATE_PROXY = 0
    GATE_HANDSHAKE = 1
    GATE_OPEN = 2


cdef class Gate:
    cdef object listener
    cdef TlsPipes pipes
    cdef TlsChannel channel           # None without TLS
    cdef bytes held                   # the PROXY header as far as it has come
    cdef bytes unsent                 # ciphertext to be written, from unsent_at on; None: nothing
    cdef Py_ssize_t unsent_at
    cdef object info                  # TlsInfo once somebody asked, or None
    cdef readonly object proxy        # ProxyInfo, or None
    cdef int64_t heard_ms             # when its peer last sent something, or connected
    cdef readonly uint8_t stage
    cdef bint has_parted              # our last record is among unsent

    # Takes what was read. 0: it failed or the peer said that nothing follows; the connection is then closed.
    cdef bint take(self, Connection connection, const uint8_t* data, Py_ssize_t size) except -1
    cdef bint take_header(self, Connection connection, const uint8_t* data, Py_ssize_t size) except -1
    cdef bint take_records(self, Connection connection, const uint8_t* data, Py_ssize_t size) except -1
    cdef int opened(self, Connection connection) except -1
    cdef bint fail(self, Connection connection, str reason) except -1
    # Seals a part of *out* when nothing is unsent, the farewell when *is_last* and out is empty; whether there is anything unsent.
    cdef bint prepare(self, outbuf_t* out, bint is_last) except -1
    cdef int sent(self, Py_ssize_t size) except -1
    # Bytes sealed and not sent: OpenSSL answers some of what a peer says (KeyUpdate, renegotiation) without asking us.
    cdef Py_ssize_t unsent_size(self) noexcept
    # What its stage waits for, in words; GATE_OPEN has none.
    cdef str awaited(self)
    # Be no longer among those whose handshake is under way. Always 0.
    cdef bint leave(self, Connection connection) except -1


# Whether a listener wants a new connection before its first byte: of a proxy that it trusts, or of a client that it
# counts from now on (`is_counted`).
cdef bint is_welcome(Connection connection, object listener) except -1
# The gate of a new connection, which is among those whose handshake is under way, and has a deadline.
cdef Gate new_gate(Connection connection, object listener, TlsPipes pipes)
