# What the load generator keeps: a ring of messages in flight per publisher, buffers and duties per client.

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from mqttcore.bench cimport linux
from mqttcore.bench.histogram cimport Histogram
from mqttcore.bench.ledger cimport Ledger, flow_t
from mqttcore.bench.websocket cimport incoming_t


# What a client is doing.
cdef enum:
    CLIENT_CLOSED, CLIENT_CONNECTING, CLIENT_UPGRADING, CLIENT_GREETING, CLIENT_READY

# Where a message's own acknowledgement stands.
cdef enum:
    SLOT_FREE, SLOT_AWAITS_FIRST, SLOT_AWAITS_PUBCOMP, SLOT_FENCED, SLOT_ACKNOWLEDGED

# What drive() waits for.
cdef enum:
    GOAL_NONE, GOAL_READY, GOAL_ANSWERED, GOAL_SENT, GOAL_DONE, GOAL_RECEIVED, GOAL_CONNECTED

# Why drive() returned.
cdef enum:
    ENDED_BY_GOAL, ENDED_BY_TIME, ENDED_BY_SILENCE, ENDED_BY_FAULT

cdef enum:
    FAULT_NONE, FAULT_SYSTEM, FAULT_CLOSED, FAULT_REFUSED, FAULT_SUBACK, FAULT_ACK, FAULT_DISCONNECT, FAULT_MALFORMED
    FAULT_MEMORY, FAULT_UPGRADE, FAULT_FRAME, FAULT_TLS


cdef struct stamp_t:                # begins each payload
    uint32_t run
    uint32_t publisher
    uint64_t number
    int64_t sent_ns


cdef struct slot_t:                 # a message in flight; its packet id is its index plus 1
    uint64_t number
    uint32_t copies                 # deliveries still awaited
    uint8_t phase                   # SLOT_*


cdef struct publisher_t:
    slot_t* ring                    # owned; message n is in ring[n & mask]
    uint8_t* template               # owned: a PUBLISH whose topic, packet id and stamp are overwritten
    uint8_t* topics                 # owned: topic_count topics of topic_size bytes; NULL: the template's topic
    uint64_t next                   # number of the next message
    uint64_t limit                  # no message with this number or above
    uint64_t fenced                 # all messages below have been answered by a PINGRESP
    uint32_t mask                   # slots in the ring, minus 1
    uint32_t client
    uint32_t size                   # bytes of template
    uint32_t topic_at
    uint32_t topic_size
    uint32_t topic_count
    uint32_t packet_id_at
    uint32_t payload_at
    uint32_t in_flight
    uint32_t window                 # messages in flight at most
    uint32_t batch                  # messages a write
    uint32_t copies                 # subscribers that each message reaches
    bint is_fenced                  # QoS 0 without subscribers: a PINGREQ behind each write stands in for the PUBACK
    bint is_dirty                   # in the list of publishers that may send


cdef struct client_t:
    uint8_t* connect                # owned: its CONNECT
    uint8_t* held                   # owned: beginning of a torn packet
    uint8_t* out                    # owned: bytes to write, from out_at on
    uint8_t* due                    # owned: bit n: topic n of the publisher is subscribed to; NULL: all are
    uint32_t connect_size
    uint32_t held_size
    uint32_t held_capacity
    uint32_t out_at
    uint32_t out_size
    uint32_t out_capacity
    uint32_t first_publisher        # subscriber: messages of publishers first … first+count-1 go to flows first_flow …
    uint32_t publisher_count
    uint32_t first_flow
    int32_t publisher               # index of its publisher_t, or -1
    int fd
    uint8_t state                   # CLIENT_*
    bint is_blocked                 # EAGAIN on write: waits for EPOLLOUT
    bint is_framing                 # WebSocket: a frame begins at frame_at, HEAD_ROOM bytes in front of its payload
    uint32_t frame_at
    incoming_t ws


@cython.final
cdef class LoadGenerator:
    cdef client_t* clients
    cdef publisher_t* publishers
    cdef uint32_t* dirty            # publishers that may send; dirty_count of them
    cdef uint8_t* input             # everything is read into here
    cdef uint32_t input_size
    cdef uint32_t dirty_count
    cdef readonly uint32_t client_count
    cdef readonly uint32_t publisher_count
    cdef uint32_t opened            # connect phase: clients 0 … opened-1 were opened
    cdef uint32_t to_open           # open until there are that many
    cdef uint32_t ready
    cdef uint32_t unanswered        # SUBACKs awaited
    cdef uint64_t storm_opened
    cdef uint64_t storm_limit       # connections of a connect storm; 0: there is no storm
    cdef uint64_t target            # for the goal
    cdef int64_t heard_ns           # when the last packet came
    cdef int64_t stall_ns
    cdef uint64_t due_number        # open loop: next batch
    cdef int64_t due_start_ns       # open loop: when batch 0 was due
    cdef double interval_ns         # open loop: between two batches; 0: closed loop
    cdef flow_t* flows
    cdef readonly Ledger ledger
    cdef readonly Histogram latency
    cdef linux.sockaddr_in address
    cdef int64_t gather_ns          # see gather()
    cdef uint32_t run_id
    cdef uint32_t payload_size
    cdef object context             # ssl.SSLContext, or None: no TLS
    cdef tuple bios                 # that all TlsClients share
    cdef list tls                   # TlsClient of each client; empty without TLS
    cdef bint is_tls
    cdef int epoll
    cdef int version
    cdef int qos
    cdef int goal
    cdef int fault
    cdef int fault_code
    cdef str fault_text             # what TLS said
    cdef uint32_t fault_client
    cdef uint8_t* upgrade           # owned; WebSocket: the HTTP request that each connection begins with
    cdef uint32_t upgrade_size
    cdef uint8_t mask[4]
    cdef bint is_websocket
    cdef bint is_loopback
    cdef bint is_publishing
    cdef bint is_replay             # retained messages come: no slots, no latency
    cdef readonly uint64_t sent
    cdef readonly uint64_t received
    cdef readonly uint64_t done
    cdef readonly uint64_t foreign
    cdef readonly uint64_t connects
    cdef readonly uint64_t in_flight
    cdef readonly int64_t unreleased    # QoS 2 messages received whose PUBREL hasn't come

    cdef client_t* client_at(self, uint32_t index) except NULL
    cdef int wait_for(self, int goal, str what) except -1
    cdef object stalled(self, str what)
    cdef int run(self, int goal, double seconds, int64_t silence_ns) except -1
    cdef object fault_error(self)
    cdef bint reached(self) noexcept nogil
    cdef int drive(self, int64_t until, int64_t silence_ns) noexcept nogil
    cdef int fail(self, uint32_t client, int fault, int code) noexcept nogil
    cdef void open(self, uint32_t client) noexcept nogil
    cdef void watch(self, uint32_t client) noexcept nogil
    cdef void on_connected(self, uint32_t client) noexcept nogil
    cdef int begin(self, client_t* c) noexcept nogil
    cdef void start_tls(self, uint32_t client) noexcept with gil
    cdef Py_ssize_t receive_tls(self, uint32_t client, uint8_t* target, Py_ssize_t room) noexcept with gil
    cdef void flush_tls(self, uint32_t client) noexcept with gil
    cdef int fail_tls(self, uint32_t client, object error) noexcept with gil
    cdef void hang_up(self, uint32_t client) noexcept nogil
    cdef void close_all(self)
    cdef int append(self, client_t* c, const uint8_t* data, uint32_t size) noexcept nogil
    cdef uint8_t* room(self, client_t* c, uint32_t size) noexcept nogil
    cdef void flush(self, uint32_t client) noexcept nogil
    cdef void end_frame(self, client_t* c) noexcept nogil
    # Takes the answer to the upgrade off what was read; bytes of payload behind it, -1: it is not whole, or a fault.
    cdef Py_ssize_t on_upgraded(self, uint32_t client, uint8_t* data, Py_ssize_t size) noexcept nogil
    cdef void mark(self, uint32_t publisher) noexcept nogil
    cdef void send_dirty(self) noexcept nogil
    cdef void fill_window(self, uint32_t index) noexcept nogil
    cdef void send_due(self, int64_t now) noexcept nogil
    cdef void put_message(self, uint32_t index, int64_t sent_ns) noexcept nogil
    cdef void settle(self, uint32_t index, slot_t* slot) noexcept nogil
    cdef void on_readable(self, uint32_t client) noexcept nogil
    cdef void hold(self, uint32_t client, const uint8_t* data, uint32_t size) noexcept nogil
    cdef int on_packet(self, uint32_t client, uint8_t first, const uint8_t* body, uint32_t size, int64_t now) noexcept nogil
    cdef int on_connack(self, uint32_t client, const uint8_t* body, uint32_t size) noexcept nogil
    cdef int on_publish(self, uint32_t client, uint8_t first, const uint8_t* body, uint32_t size, int64_t now) noexcept nogil
    cdef int on_ack(self, uint32_t client, uint8_t first, const uint8_t* body, uint32_t size) noexcept nogil
    cdef void on_pingresp(self, uint32_t index) noexcept nogil
