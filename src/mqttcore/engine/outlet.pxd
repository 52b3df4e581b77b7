# The sending half of a connection: what a session needs to know of the network.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.core cimport Core
from mqttcore.engine.holds cimport holds_t
from mqttcore.engine.message cimport pub_t
from mqttcore.engine.outbuf cimport outbuf_t
from mqttcore.engine.topics cimport subids_t


# A topic alias that we gave out: topic bytes are kept to compare.
cdef struct alias_t:
    uint8_t* topic
    uint32_t size
    uint8_t was_used          # since a competing topic last asked for this place


cdef class Outlet:
    cdef Core core
    cdef outbuf_t out
    cdef holds_t holds                # acknowledgements and QoS 2 messages that wait for the store (journal.pxd)
    cdef uint64_t cork                # nothing is written before this batch is safe: CONNACK waits for it; 0: none
    cdef PyObject* next_dirty
    cdef alias_t* aliases             # alias n stands at n - 1; NULL until the first use
    cdef bytes mount                  # prefix of its topics, which the client neither says nor hears; None: none
    cdef uint32_t maximum_packet_size  # of the client
    cdef uint16_t alias_maximum       # how many we may give out on this connection
    cdef readonly uint8_t version
    cdef uint8_t is_dirty
    cdef uint8_t traced               # TRACED_PUBLISHER: what passes here is told to core.tracer; 0: it is not
    cdef bint is_waiting              # stands in Journal.waiting

    # Appends a PUBLISH; 1: sent, 0: over the client's Maximum Packet Size, treat as sent [MQTT-3.1.2-25].
    # first: packet type and flags. packet_id 0 at QoS 0.
    cdef int send_publish(self, pub_t* pub, uint8_t first, uint16_t packet_id, subids_t* ids) except -1
    # Appends PUBACK, PUBREC, PUBREL or PUBCOMP; first with its flags.
    cdef int send_ack(self, uint8_t first, uint16_t packet_id, uint8_t reason_code) except -1
    # Appends a whole packet, unless it is over the client's Maximum Packet Size.
    cdef int send_bytes(self, bytes packet) except -1
    # Puts this outlet on the engine's list of those to be flushed at the end of the turn.
    cdef void mark_dirty(self) noexcept
    # Writes what is pending. Overridden by the network; here output waits to be taken.
    cdef int flush(self) except -1
    # Cuts the connection after flush() raised: what it owes cannot be said any more.
    cdef int give_up(self) except -1
    # Has an acknowledgement, or the PUBLISH of a slot, or a whole packet, wait for the batch that gathers.
    cdef int hold(self, uint8_t first, uint16_t packet_id, uint8_t reason_code, bytes packet) except -1
    # Has all output from the first byte on wait for the batch that gathers.
    cdef int cork_output(self) except -1
    cdef int wait_for_store(self) except -1
    cdef void drop_aliases(self) noexcept
    cdef int find_alias(self, const uint8_t* topic, uint32_t size) except -1
