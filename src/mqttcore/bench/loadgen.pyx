"""Drive thousands of MQTT clients from one thread: epoll and non-blocking sockets, no Python object per message.

One LoadGenerator owns a fixed number of clients. A *publisher* is a client that sends numbered messages and keeps a
bounded number in flight; a message is in flight until every subscriber due has it and its acknowledgements are through.

    publisher --PUBLISH--> broker --PUBLISH--> subscriber --note--> ledger, latency
        ^                                          |
        +------------- slot of the ring is free ---+

Both ends live here, so windows, order and latency need no clock but one and no word between processes. The payload
begins with a stamp: run, publisher's number, sequence number and the time it was sent (or should have been).
Linux only.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.stdint cimport UINT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove
from posix.unistd cimport close

from mqttcore.bench cimport linux
from mqttcore.bench.histogram cimport Histogram
from mqttcore.bench.ledger cimport Ledger, flow_note
from mqttcore.bench.linux cimport now_ns
from mqttcore.bench.tls cimport RECORDS_CLOSED, RECORDS_NONE, TlsClient
from mqttcore.bench.websocket cimport HEAD_ROOM, put_head, unframe

import os
import socket
import ssl

from mqttcore.errors import MqttCoreError

cdef enum:
    MAX_EVENTS = 512
    MIN_INPUT = 256 * 1024          # bytes read at once
    SLICE_NS = 100 * 1000 * 1000    # how long the GIL is given up at most: then signals are looked at
    GATHERED = 32                   # messages in a turn that make gathering needless
    SPIN_NS = 60 * 1000             # open loop: the rest of a wait that is polled, not slept
    SOURCE_LIMIT = 25000            # connections per source address: below the usual range of ephemeral ports
    STORM_SOURCES = 64              # addresses a connect storm rotates over: ports rest a minute in TIME_WAIT

cdef dict FAULT_TEXT = {
    FAULT_CLOSED: "the broker closed the connection",
    FAULT_REFUSED: "CONNACK refused the connection with code 0x{:02X}",
    FAULT_SUBACK: "SUBACK refused a subscription with code 0x{:02X}",
    FAULT_ACK: "the broker refused a message with reason code 0x{:02X}",
    FAULT_DISCONNECT: "the broker sent DISCONNECT with reason code 0x{:02X}",
    FAULT_MALFORMED: "the broker sent a packet that makes no sense here, first byte 0x{:02X}",
    FAULT_MEMORY: "out of memory",
    FAULT_UPGRADE: "the broker did not agree to speak WebSocket",
    FAULT_FRAME: "the broker sent a WebSocket frame that makes no sense here, first byte 0x{:02X}",
}


class LoadError(MqttCoreError):
    """A run that cannot go on: refused, cut off, or nothing heard for too long."""


cdef inline uint32_t next_power_of_two(uint32_t value):
    cdef uint32_t power = 1
    while power < value:
        power *= 2
    return power


cdef inline uint32_t topic_of(publisher_t* publisher, uint64_t number) noexcept nogil:
    # A step coprime to every round number: neighbours in time are no neighbours in the tree.
    return <uint32_t>(number * 7919 % publisher.topic_count)


cdef inline uint32_t varint_size(const uint8_t* at, const uint8_t* end, uint32_t* value) noexcept nogil:
    # Bytes of the variable byte integer at *at*, its number in *value*; 0: cut off; 5: malformed.
    cdef uint32_t size = 0
    value[0] = 0
    while size < 4:
        if at + size >= end:
            return 0
        value[0] |= <uint32_t>(at[size] & 0x7F) << (7 * size)
        size += 1
        if not at[size - 1] & 0x80:
            return size
    return 5


cdef class LoadGenerator:
    """Clients of one broker at *host*:*port* (IPv4). See the module.

    version: 4 or 5, qos: of all messages both ways. payload_size: bytes, at least `STAMP_SIZE`.
    clients, publishers, flows: how many of each there are; they are described by the `set_…` methods.
    stall_s: seconds without any packet from the broker after which a wait raises LoadError.
    upgrade: the HTTP request with which each connection turns to WebSocket; empty: plain TCP. One frame a write.
    tls: a client's ssl.SSLContext.
    """

    def __cinit__(self, str host, int port, *, int version, int qos, uint32_t payload_size, uint32_t clients,
                  uint32_t publishers, uint32_t flows, double stall_s, object tls=None, bytes upgrade=b""):
        cdef uint32_t i
        self.epoll = -1
        if version not in (4, 5) or qos not in (0, 1, 2):
            raise ValueError("version is 4 or 5, qos 0, 1 or 2")
        if not sizeof(stamp_t) <= payload_size <= 1 << 27:
            raise ValueError(f"payload_size is not in {sizeof(stamp_t)} … {1 << 27}")
        packed = socket.inet_aton(socket.gethostbyname(host))
        self.address.sin_family = linux.AF_INET
        self.address.sin_port = linux.htons(port)
        self.address.sin_addr.s_addr = linux.htonl(int.from_bytes(packed, "big"))
        self.is_loopback = packed[0] == 127
        self.version = version
        self.qos = qos
        self.payload_size = payload_size
        self.stall_ns = <int64_t>(stall_s * 1e9)
        self.run_id = int.from_bytes(os.urandom(4), "big")
        self.upgrade = copied(upgrade)
        self.upgrade_size = <uint32_t>len(upgrade)
        self.is_websocket = self.upgrade_size > 0
        memcpy(self.mask, &self.run_id, 4)
        self.ledger = Ledger(flows)
        self.flows = self.ledger.flows
        self.latency = Histogram()
        self.input_size = max(<uint32_t>MIN_INPUT, 2 * payload_size + 70000)
        self.input = <uint8_t*>malloc(self.input_size)
        self.clients = <client_t*>calloc(clients + 1, sizeof(client_t))
        self.publishers = <publisher_t*>calloc(publishers + 1, sizeof(publisher_t))
        self.dirty = <uint32_t*>calloc(publishers + 1, sizeof(uint32_t))
        if self.input == NULL or self.clients == NULL or self.publishers == NULL or self.dirty == NULL:
            raise MemoryError
        for i in range(clients):
            self.clients[i].fd = self.clients[i].publisher = -1
        self.client_count = clients
        self.context = tls
        self.is_tls = tls is not None
        self.bios = (ssl.MemoryBIO(), ssl.MemoryBIO())
        self.tls = [None] * clients if self.is_tls else []
        self.publisher_count = publishers
        self.epoll = linux.epoll_create1(linux.EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        cdef uint32_t i
        self.close_all()
        for i in range(self.client_count):
            free(self.clients[i].connect)
            free(self.clients[i].held)
            free(self.clients[i].out)
            free(self.clients[i].due)
        for i in range(self.publisher_count):
            free(self.publishers[i].ring)
            free(self.publishers[i].template)
            free(self.publishers[i].topics)
        free(self.upgrade)
        free(self.clients)
        free(self.publishers)
        free(self.dirty)
        free(self.input)

    # Description -----------------------------------------------------------------------------------------------------

    cdef client_t* client_at(self, uint32_t index) except NULL:
        if index >= self.client_count:
            raise IndexError("no such client")
        return &self.clients[index]

    def set_client(self, uint32_t client, bytes connect):
        """Give *client* its CONNECT packet."""
        cdef client_t* c = self.client_at(client)
        free(c.connect)
        c.connect = copied(connect)
        c.connect_size = <uint32_t>len(connect)

    def set_publisher(self, uint32_t publisher, uint32_t client, bytes template, *, uint32_t topic_at,
                      uint32_t topic_size, uint32_t packet_id_at, uint32_t payload_at, uint32_t window,
                      uint32_t batch, uint32_t copies, bytes topics=b"", bint is_fenced=False, limit=None):
        """Make *client* the publisher of that number. The four offsets and sizes describe *template*, a PUBLISH.

        window: messages in flight at most, batch: messages a write, copies: deliveries of each message.
        topics: topics of *topic_size* bytes behind one another, walked in a fixed scattered order; empty: only one.
        is_fenced: QoS 0 without subscribers, each write is followed by a PINGREQ. limit: number of messages at most.
        """
        cdef publisher_t* p
        cdef client_t* c = self.client_at(client)
        if publisher >= self.publisher_count:
            raise IndexError("no such publisher")
        if not 1 <= batch <= window <= 32768:
            raise ValueError("1 <= batch <= window <= 32768 does not hold")
        if payload_at + self.payload_size != <uint32_t>len(template) or (self.qos > 0) != (packet_id_at > 0):
            raise ValueError("the template does not fit payload_size and qos")
        if not (copies or is_fenced or self.qos):
            raise ValueError("nothing would ever tell that a message is done")
        if topics and (not topic_size or len(topics) % topic_size):
            raise ValueError("topics are not all of topic_size")
        p = &self.publishers[publisher]
        if p.ring != NULL:
            raise ValueError("the publisher has been set")
        p.mask = next_power_of_two(window) - 1
        p.ring = <slot_t*>calloc(p.mask + 1, sizeof(slot_t))
        if p.ring == NULL:
            raise MemoryError
        p.template = copied(template)
        if topics:
            p.topics = copied(topics)
            p.topic_count = <uint32_t>(len(topics) // topic_size)
        p.client = client
        p.size = <uint32_t>len(template)
        p.topic_at = topic_at
        p.topic_size = topic_size
        p.packet_id_at = packet_id_at
        p.payload_at = payload_at
        p.window = window
        p.batch = batch
        p.copies = copies
        p.is_fenced = is_fenced
        p.limit = UINT64_MAX if limit is None else limit
        c.publisher = <int32_t>publisher

    def set_subscriber(self, uint32_t client, *, uint32_t first_publisher, uint32_t publisher_count,
                       uint32_t first_flow, bytes due=None):
        """Say whose messages *client* shall get: of publishers first_publisher …, counted in flows first_flow ….

        due: bitmap (bit n & 7 of byte n // 8) of the publisher's topics that it subscribes to; None: all.
        A message from anyone else, or of another topic, counts as foreign.
        """
        cdef client_t* c = self.client_at(client)
        if first_publisher + publisher_count > self.publisher_count:
            raise IndexError("no such publisher")
        if first_flow + publisher_count > self.ledger.flow_count:
            raise IndexError("no such flow")
        c.first_publisher = first_publisher
        c.publisher_count = publisher_count
        c.first_flow = first_flow
        free(c.due)
        c.due = copied(due) if due is not None else NULL

    # Phases ----------------------------------------------------------------------------------------------------------

    def connect(self, uint32_t first_count, *, uint32_t concurrency=100):
        """Connect clients 0 … first_count-1, as far as they aren't, and wait for every CONNACK.

        concurrency: handshakes under way at most.
        """
        if first_count > self.client_count:
            raise IndexError("no such client")
        self.to_open = first_count
        while self.opened < self.to_open and self.opened < self.ready + concurrency:
            self.open(self.opened)
            self.opened += 1
        self.target = first_count
        self.wait_for(GOAL_READY, "CONNACKs")

    def request(self, uint32_t client, bytes packets, uint32_t answers):
        """Send *packets* (SUBSCRIBEs) from *client*; *answers* SUBACKs are awaited by `await_answers()`."""
        cdef client_t* c = self.client_at(client)
        self.unanswered += answers
        if self.append(c, packets, <uint32_t>len(packets)):
            self.flush(client)

    def await_answers(self):
        """Wait until every SUBACK has come and granted what was asked for."""
        self.wait_for(GOAL_ANSWERED, "SUBACKs")

    def start_publishing(self):
        """Let every publisher fill its window, from the next wait on."""
        cdef uint32_t i
        self.is_publishing = True
        for i in range(self.publisher_count):
            self.mark(i)

    def start_schedule(self, double rate):
        """Publish *rate* messages a second in all, whatever comes back: one batch after the other from each publisher.

        Batches are of one size, that of the first publisher's.
        """
        linux.prctl(linux.PR_SET_TIMERSLACK, 1)
        self.interval_ns = 1e9 * self.publishers[0].batch / rate
        self.due_number = 0
        self.due_start_ns = now_ns()

    def gather(self, double seconds):
        """Before each read that follows a turn with few messages, sleep *seconds*; 0: never.

        Waking a sleeping reader costs the writer. With one subscriber that keeps up, a broker would be charged for that
        once a write, or not, depending on what else the reader's core does; a short sleep makes it the same each time.
        """
        linux.prctl(linux.PR_SET_TIMERSLACK, 1)
        self.gather_ns = <int64_t>(seconds * 1e9)

    def stop_publishing(self):
        """Publish no more."""
        self.is_publishing = False
        self.gather_ns = 0
        self.interval_ns = 0

    def run_for(self, double seconds):
        """Go on for *seconds*; raise LoadError when nothing is heard for stall_s."""
        if self.run(GOAL_NONE, seconds, self.stall_ns) == ENDED_BY_SILENCE:
            raise self.stalled("packets")

    def await_sent(self):
        """Wait until every publisher has reached its limit and no message is in flight; return whether that came true.

        False: all were sent, but some haven't arrived and nothing was heard for stall_s. LoadError: they weren't all sent.
        """
        cdef uint32_t i
        if self.run(GOAL_SENT, 1e9, self.stall_ns) == ENDED_BY_GOAL:
            return True
        for i in range(self.publisher_count):
            if self.publishers[i].next < self.publishers[i].limit:
                raise self.stalled("deliveries and acknowledgements")
        return False

    def await_received(self, uint64_t target):
        """Wait until *target* messages have been received."""
        self.target = target
        self.wait_for(GOAL_RECEIVED, "messages")

    def drain(self, double silence_s):
        """Wait until every handshake is through or nothing has come for *silence_s*; return whether all came."""
        return self.run(GOAL_DONE, 1e9, <int64_t>(silence_s * 1e9)) == ENDED_BY_GOAL

    def start_storm(self, uint32_t concurrency, limit=None):
        """Let clients 0 … concurrency-1 connect, disconnect on CONNACK and begin anew, *limit* connections in all."""
        cdef uint32_t i
        self.storm_limit = UINT64_MAX if limit is None else limit
        self.to_open = self.opened = min(concurrency, self.client_count)
        for i in range(self.opened):
            self.open(i)

    def await_connects(self, uint64_t target):
        """Wait until *target* connections of the storm have had their CONNACK."""
        self.target = target
        self.wait_for(GOAL_CONNECTED, "CONNACKs")

    def stop_storm(self):
        """Open no more; what is under way is waited for."""
        self.storm_limit = self.storm_opened
        self.await_connects(self.storm_opened)

    def expect_replay(self):
        """From now on messages are retained ones coming back: they take part in no window and no latency."""
        self.is_replay = True

    def close(self):
        """Close every connection without DISCONNECT."""
        self.close_all()

    # Waiting ---------------------------------------------------------------------------------------------------------

    cdef int wait_for(self, int goal, str what) except -1:
        if self.run(goal, 1e9, self.stall_ns) != ENDED_BY_GOAL:
            raise self.stalled(what)
        return 0

    cdef object stalled(self, str what):
        return LoadError(
            f"stalled: nothing heard for {self.stall_ns / 1e9:.1f} s while waiting for {what}: "
            f"{self.ready} of {self.to_open} clients connected, {self.unanswered} SUBACKs missing, "
            f"{self.in_flight} messages in flight, {self.sent} sent, {self.received} received"
        )

    cdef int run(self, int goal, double seconds, int64_t silence_ns) except -1:
        # Drives until the goal, the time or silence; looks at signals in between. Raises on a fault.
        cdef int64_t now = now_ns()
        cdef int64_t until = now + <int64_t>(seconds * 1e9)
        cdef int ended = ENDED_BY_TIME
        self.goal = goal
        self.heard_ns = now
        while ended == ENDED_BY_TIME and (now < until or goal != GOAL_NONE):
            with nogil:
                ended = self.drive(min(until, now + <int64_t>SLICE_NS), silence_ns)
            PyErr_CheckSignals()
            now = now_ns()
        if ended == ENDED_BY_FAULT:
            raise self.fault_error()
        return ended

    cdef object fault_error(self):
        cdef str what
        if self.fault == FAULT_SYSTEM:
            what = os.strerror(self.fault_code)
        elif self.fault == FAULT_TLS:
            what = f"TLS: {self.fault_text}"
        else:
            what = FAULT_TEXT[self.fault].format(self.fault_code)
        return LoadError(f"client {self.fault_client}: {what}")

    cdef bint reached(self) noexcept nogil:
        cdef uint32_t i
        if self.goal == GOAL_READY:
            return self.ready >= self.target
        if self.goal == GOAL_ANSWERED:
            return self.unanswered == 0
        if self.goal == GOAL_RECEIVED:
            return self.received >= self.target
        if self.goal == GOAL_CONNECTED:
            return self.connects >= self.target
        if self.goal == GOAL_DONE or self.goal == GOAL_SENT:
            if self.in_flight or self.unreleased:
                return False
            if self.goal == GOAL_SENT:
                for i in range(self.publisher_count):
                    if self.publishers[i].next < self.publishers[i].limit:
                        return False
            return True
        return False

    cdef int drive(self, int64_t until, int64_t silence_ns) noexcept nogil:
        # The loop of everything. Order: send what may be sent, look whether that was all, wait for the broker.
        cdef linux.epoll_event events[MAX_EVENTS]
        cdef int64_t now, due
        cdef uint32_t client
        cdef uint64_t before = self.received
        cdef int i, count, timeout_ms
        while True:
            self.send_dirty()
            if self.interval_ns > 0:
                self.send_due(now_ns())
            if self.fault:
                return ENDED_BY_FAULT
            if self.reached():
                return ENDED_BY_GOAL
            now = now_ns()
            if now >= until:
                return ENDED_BY_TIME
            if now - self.heard_ns > silence_ns:
                return ENDED_BY_SILENCE
            if self.gather_ns and self.received - before < GATHERED:
                linux.mqttcore_poll_ns(-1, self.gather_ns)
            before = self.received
            timeout_ms = <int>((until - now) // 1000000) + 1
            if self.interval_ns > 0:
                due = self.due_start_ns + <int64_t>(self.due_number * self.interval_ns)
                if due - now > SPIN_NS:
                    linux.mqttcore_poll_ns(self.epoll, min(due, until) - now - SPIN_NS)
                timeout_ms = 0
            count = linux.epoll_wait(self.epoll, events, MAX_EVENTS, timeout_ms)
            if count < 0:
                if errno != EINTR:
                    self.fail(0, FAULT_SYSTEM, errno)
                continue
            for i in range(count):
                client = <uint32_t>events[i].data.u64
                if self.clients[client].state == CLIENT_CONNECTING:
                    self.on_connected(client)
                    continue
                if events[i].events & linux.EPOLLOUT and self.clients[client].is_blocked:
                    self.flush(client)
                if events[i].events & ~<uint32_t>linux.EPOLLOUT:
                    self.on_readable(client)
                self.send_dirty()

    cdef int fail(self, uint32_t client, int fault, int code) noexcept nogil:
        # Keeps the first fault; drive() returns it. Always 0, to be returned by what failed.
        if not self.fault:
            self.fault = fault
            self.fault_code = code
            self.fault_client = client
        return 0

    # Connections -----------------------------------------------------------------------------------------------------

    cdef void open(self, uint32_t client) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        cdef linux.sockaddr_in source
        cdef linux.epoll_event event
        cdef uint32_t host
        cdef int on = 1
        c.held_size = c.out_at = c.out_size = c.ws.head_size = 0
        c.ws.left = 0
        c.is_blocked = c.is_framing = False
        c.fd = linux.socket(linux.AF_INET, linux.SOCK_STREAM | linux.SOCK_NONBLOCK | linux.SOCK_CLOEXEC, 0)
        if c.fd < 0:
            self.fail(client, FAULT_SYSTEM, errno)
            return
        linux.setsockopt(c.fd, linux.IPPROTO_TCP, linux.TCP_NODELAY, &on, sizeof(on))
        host = client // SOURCE_LIMIT
        if self.storm_limit:
            host = <uint32_t>(self.storm_opened % STORM_SOURCES)
            self.storm_opened += 1
        if host and self.is_loopback:
            source = self.address
            source.sin_port = 0
            source.sin_addr.s_addr = linux.htonl((127 << 24) + 1 + host)
            linux.setsockopt(c.fd, linux.IPPROTO_IP, linux.IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on))
            if linux.bind(c.fd, <linux.sockaddr*>&source, sizeof(source)) < 0:
                self.fail(client, FAULT_SYSTEM, errno)
                return
        if linux.connect(c.fd, <linux.sockaddr*>&self.address, sizeof(self.address)) < 0 and errno != EINPROGRESS:
            self.fail(client, FAULT_SYSTEM, errno)
            return
        c.state = CLIENT_CONNECTING
        event.events = linux.EPOLLOUT
        event.data.u64 = client
        if linux.epoll_ctl(self.epoll, linux.EPOLL_CTL_ADD, c.fd, &event) < 0:
            self.fail(client, FAULT_SYSTEM, errno)

    cdef void watch(self, uint32_t client) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        cdef linux.epoll_event event
        event.events = linux.EPOLLIN | (linux.EPOLLOUT if c.is_blocked else 0)
        event.data.u64 = client
        if linux.epoll_ctl(self.epoll, linux.EPOLL_CTL_MOD, c.fd, &event) < 0:
            self.fail(client, FAULT_SYSTEM, errno)

    cdef void on_connected(self, uint32_t client) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        cdef int error = 0
        cdef linux.socklen_t size = sizeof(error)
        linux.getsockopt(c.fd, linux.SOL_SOCKET, linux.SO_ERROR, &error, &size)
        if error:
            self.fail(client, FAULT_SYSTEM, error)
            return
        c.state = CLIENT_UPGRADING if self.is_websocket else CLIENT_GREETING
        self.watch(client)
        if self.is_tls:
            self.start_tls(client)
        elif self.begin(c):
            self.flush(client)

    cdef int begin(self, client_t* c) noexcept nogil:
        # What is said first; 0: a fault was kept.
        if self.is_websocket:
            return self.append(c, self.upgrade, self.upgrade_size)
        return self.append(c, c.connect, c.connect_size)

    cdef int fail_tls(self, uint32_t client, object error) noexcept with gil:
        if not self.fault:
            self.fault_text = str(error)
        return self.fail(client, FAULT_TLS, 0)

    cdef void start_tls(self, uint32_t client) noexcept with gil:
        try:
            self.tls[client] = TlsClient(self.context, self.bios, self.clients[client].fd)
        except OSError as error:
            self.fail_tls(client, error)

    cdef Py_ssize_t receive_tls(self, uint32_t client, uint8_t* target, Py_ssize_t room) noexcept with gil:
        # Like recv(), but RECORDS_NONE and RECORDS_CLOSED; a fault is kept.
        cdef TlsClient tls = self.tls[client]
        cdef client_t* c = &self.clients[client]
        cdef bint was_open = tls.is_open
        cdef Py_ssize_t got = RECORDS_CLOSED
        try:
            got = tls.receive(target, room)
            if tls.is_open and not was_open and self.begin(c):
                self.flush(client)
        except OSError as error:
            self.fail_tls(client, error)
        return got

    cdef void flush_tls(self, uint32_t client) noexcept with gil:
        # Like flush(): what was sealed and not taken by the kernel goes first.
        cdef TlsClient tls = self.tls[client]
        cdef client_t* c = &self.clients[client]
        cdef bint was_blocked = c.is_blocked
        cdef bint is_through
        try:
            is_through = tls.send()
            if is_through and c.out_at < c.out_size:
                is_through = tls.write(c.out + c.out_at, c.out_size - c.out_at)
                c.out_at = c.out_size = 0
        except OSError as error:
            self.fail_tls(client, error)
            return
        c.is_blocked = not is_through
        if is_through and was_blocked and c.publisher >= 0:
            self.mark(<uint32_t>c.publisher)
        if c.is_blocked != was_blocked:
            self.watch(client)

    cdef void hang_up(self, uint32_t client) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        if c.fd >= 0:
            close(c.fd)
        c.fd = -1
        c.state = CLIENT_CLOSED

    cdef void close_all(self):
        cdef uint32_t i
        for i in range(self.client_count):
            self.hang_up(i)
        if self.epoll >= 0:
            close(self.epoll)
        self.epoll = -1

    # Writing ---------------------------------------------------------------------------------------------------------

    cdef int append(self, client_t* c, const uint8_t* data, uint32_t size) noexcept nogil:
        # 1: it is in the buffer, 0: a fault was kept.
        cdef uint8_t* target = self.room(c, size)
        if target == NULL:
            return 0
        memcpy(target, data, size)
        c.out_size += size
        return 1

    cdef inline uint8_t* room(self, client_t* c, uint32_t size) noexcept nogil:
        # Where *size* bytes may be put; the caller then adds to out_size what it used. NULL: a fault was kept.
        cdef uint32_t capacity
        cdef uint8_t* out
        if c.out_size + size + HEAD_ROOM > c.out_capacity:
            capacity = 2 * (c.out_size + size + HEAD_ROOM)
            out = <uint8_t*>realloc(c.out, capacity)
            if out == NULL:
                self.fail(0, FAULT_MEMORY, 0)
                return NULL
            c.out = out
            c.out_capacity = capacity
        if self.is_websocket and not c.is_framing and c.state != CLIENT_UPGRADING:
            c.is_framing = True
            c.frame_at = c.out_size
            c.out_size += HEAD_ROOM
        return c.out + c.out_size

    cdef void end_frame(self, client_t* c) noexcept nogil:
        # What was appended since the last write becomes one frame.
        cdef uint8_t* payload = c.out + c.frame_at + HEAD_ROOM
        cdef uint32_t size = c.out_size - c.frame_at - HEAD_ROOM
        cdef uint32_t head_size = put_head(payload, size, self.mask)
        cdef uint32_t gap = HEAD_ROOM - head_size
        c.is_framing = False
        if c.out_at == c.frame_at:
            c.out_at += gap
        else:                           # behind bytes that could not be written yet
            memmove(c.out + c.frame_at, payload - head_size, head_size + size)
            c.out_size -= gap

    cdef void flush(self, uint32_t client) noexcept nogil:
        # One write of everything that is there; the rest waits for EPOLLOUT.
        cdef client_t* c = &self.clients[client]
        cdef Py_ssize_t sent
        cdef bint was_blocked = c.is_blocked
        if c.is_framing:
            self.end_frame(c)
        if self.is_tls:
            self.flush_tls(client)
            return
        if c.out_at == c.out_size:
            return
        sent = linux.send(c.fd, c.out + c.out_at, c.out_size - c.out_at, linux.MSG_NOSIGNAL)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                self.fail(client, FAULT_SYSTEM, errno)
                return
            sent = 0
        c.out_at += <uint32_t>sent
        c.is_blocked = c.out_at < c.out_size
        if not c.is_blocked:
            c.out_at = c.out_size = 0
            if was_blocked and c.publisher >= 0:
                self.mark(<uint32_t>c.publisher)
        if c.is_blocked != was_blocked:
            self.watch(client)

    # Publishing ------------------------------------------------------------------------------------------------------

    cdef inline void mark(self, uint32_t publisher) noexcept nogil:
        if not self.publishers[publisher].is_dirty:
            self.publishers[publisher].is_dirty = True
            self.dirty[self.dirty_count] = publisher
            self.dirty_count += 1

    cdef void send_dirty(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.dirty_count):
            self.publishers[self.dirty[i]].is_dirty = False
            if self.is_publishing:
                self.fill_window(self.dirty[i])
        self.dirty_count = 0

    cdef void fill_window(self, uint32_t index) noexcept nogil:
        # Whole batches, each one write, as many as the window allows.
        cdef publisher_t* p = &self.publishers[index]
        cdef client_t* c = &self.clients[p.client]
        cdef uint32_t batch, i
        cdef uint8_t* fence
        cdef int64_t now
        while not (c.is_blocked or self.fault):
            batch = p.batch
            if p.limit - p.next < batch:
                batch = <uint32_t>(p.limit - p.next)
            if batch == 0 or p.in_flight + batch > p.window:
                return
            for i in range(batch):
                if p.ring[(p.next + i) & p.mask].phase != SLOT_FREE:
                    return
            now = now_ns()
            for _ in range(batch):
                self.put_message(index, now)
            if p.is_fenced:
                fence = self.room(c, 2)
                if fence == NULL:
                    return
                fence[0] = 0xC0         # PINGREQ
                fence[1] = 0
                c.out_size += 2
            self.flush(p.client)

    cdef void send_due(self, int64_t now) noexcept nogil:
        # Open loop: every batch whose time has come, each one write, stamped with that time.
        cdef publisher_t* p
        cdef int64_t due
        cdef uint32_t index, i
        while not self.fault:
            due = self.due_start_ns + <int64_t>(self.due_number * self.interval_ns)
            if due > now:
                return
            index = <uint32_t>(self.due_number % self.publisher_count)
            p = &self.publishers[index]
            for i in range(p.batch):
                if p.ring[(p.next + i) & p.mask].phase != SLOT_FREE:
                    return              # far behind: its latency goes on counting from when it was due
            for _ in range(p.batch):
                self.put_message(index, due)
            self.flush(p.client)
            self.due_number += 1

    cdef void put_message(self, uint32_t index, int64_t sent_ns) noexcept nogil:
        cdef publisher_t* p = &self.publishers[index]
        cdef uint64_t number = p.next
        cdef uint32_t at = <uint32_t>(number & p.mask)
        cdef slot_t* slot = &p.ring[at]
        cdef uint8_t* packet = self.room(&self.clients[p.client], p.size)
        cdef stamp_t stamp
        if packet == NULL:
            return
        memcpy(packet, p.template, p.size)
        if p.topics != NULL:
            memcpy(packet + p.topic_at, p.topics + <size_t>topic_of(p, number) * p.topic_size, p.topic_size)
        if self.qos:
            packet[p.packet_id_at] = <uint8_t>((at + 1) >> 8)
            packet[p.packet_id_at + 1] = <uint8_t>(at + 1)
        stamp.run = self.run_id
        stamp.publisher = index
        stamp.number = number
        stamp.sent_ns = sent_ns
        memcpy(packet + p.payload_at, &stamp, sizeof(stamp))
        self.clients[p.client].out_size += p.size
        slot.number = number
        slot.copies = p.copies
        slot.phase = SLOT_AWAITS_FIRST if self.qos else SLOT_FENCED if p.is_fenced else SLOT_ACKNOWLEDGED
        p.next += 1
        p.in_flight += 1
        self.in_flight += 1
        self.sent += 1

    cdef inline void settle(self, uint32_t index, slot_t* slot) noexcept nogil:
        # The slot is free again once all copies have arrived and all acknowledgements are through.
        cdef publisher_t* p = &self.publishers[index]
        if slot.copies or slot.phase != SLOT_ACKNOWLEDGED:
            return
        slot.phase = SLOT_FREE
        p.in_flight -= 1
        self.in_flight -= 1
        self.done += 1
        self.mark(index)

    # Reading ---------------------------------------------------------------------------------------------------------

    cdef void on_readable(self, uint32_t client) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        cdef uint8_t* at = self.input
        cdef uint8_t* end
        cdef Py_ssize_t size
        cdef uint32_t remaining, used
        cdef int64_t now
        cdef int kind
        if c.fd < 0:
            return                      # closed earlier in this turn
        if c.held_size:
            memcpy(self.input, c.held, c.held_size)
        if self.is_tls:
            size = self.receive_tls(client, self.input + c.held_size, self.input_size - c.held_size)
            if size == RECORDS_NONE:
                self.heard_ns = now_ns()
                return
        else:
            size = linux.recv(c.fd, self.input + c.held_size, self.input_size - c.held_size, 0)
        if size <= 0:
            if size == 0 or self.is_tls:
                self.fail(client, FAULT_CLOSED, 0)
            elif errno != EAGAIN and errno != EINTR:
                self.fail(client, FAULT_SYSTEM, errno)
            return
        self.heard_ns = now = now_ns()
        if c.state == CLIENT_UPGRADING:
            size = self.on_upgraded(client, at, c.held_size + size)
            if size < 0:
                return
            c.held_size = 0
        if self.is_websocket:
            size = unframe(&c.ws, at + c.held_size, size, &kind)
            if size < 0:
                self.fail(client, FAULT_FRAME, kind)
                return
        end = at + c.held_size + size
        c.held_size = 0
        while end - at >= 2:
            used = varint_size(at + 1, end, &remaining)
            if used == 0:
                break
            if used > 4 or remaining > self.input_size // 2:
                self.fail(client, FAULT_MALFORMED, at[0])
                return
            if <uint32_t>(end - at) < 1 + used + remaining:
                break
            if not self.on_packet(client, at[0], at + 1 + used, remaining, now):
                return
            at += 1 + used + remaining
        if at < end:
            self.hold(client, at, <uint32_t>(end - at))
        if c.out_size and not c.is_blocked:
            self.flush(client)          # acknowledgements of everything that was read: one write

    cdef void hold(self, uint32_t client, const uint8_t* data, uint32_t size) noexcept nogil:
        # Keeps what is not whole yet.
        cdef client_t* c = &self.clients[client]
        cdef uint8_t* held
        if size > c.held_capacity:
            held = <uint8_t*>realloc(c.held, size)
            if held == NULL:
                self.fail(client, FAULT_MEMORY, 0)
                return
            c.held = held
            c.held_capacity = size
        memcpy(c.held, data, size)
        c.held_size = size

    cdef Py_ssize_t on_upgraded(self, uint32_t client, uint8_t* data, Py_ssize_t size) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        cdef Py_ssize_t at
        for at in range(size - 3):
            if memcmp(data + at, b"\r\n\r\n", 4) == 0:
                if memcmp(data, b"HTTP/1.1 101", 12):
                    self.fail(client, FAULT_UPGRADE, 0)
                    return -1
                c.state = CLIENT_GREETING
                if self.append(c, c.connect, c.connect_size):
                    self.flush(client)
                memmove(data, data + at + 4, size - at - 4)
                return size - at - 4
        self.hold(client, data, <uint32_t>size)
        return -1

    cdef int on_packet(self, uint32_t client, uint8_t first, const uint8_t* body, uint32_t size,
                       int64_t now) noexcept nogil:
        # 1: go on, 0: read no more from this client (a fault, or it has been closed).
        cdef client_t* c = &self.clients[client]
        cdef uint8_t kind = first >> 4
        cdef uint32_t at, length
        if kind == 3:
            return self.on_publish(client, first, body, size, now)
        if 4 <= kind <= 7 and size >= 2:
            return self.on_ack(client, first, body, size)
        if kind == 2 and size >= 2 and c.state == CLIENT_GREETING:
            return self.on_connack(client, body, size)
        if kind == 9 and size >= 3 and self.unanswered:
            at = 2
            if self.version == 5:
                at += varint_size(body + at, body + size, &length) + length
            while at < size:
                if body[at] >= 0x80:
                    return self.fail(client, FAULT_SUBACK, body[at])
                at += 1
            self.unanswered -= 1
            return 1
        if kind == 13 and c.publisher >= 0:
            self.on_pingresp(<uint32_t>c.publisher)
            return 1
        if kind == 14:
            return self.fail(client, FAULT_DISCONNECT, body[0] if size else 0)
        return self.fail(client, FAULT_MALFORMED, first)

    cdef int on_connack(self, uint32_t client, const uint8_t* body, uint32_t size) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        cdef uint16_t receive_maximum
        cdef uint8_t* farewell
        if body[1]:
            return self.fail(client, FAULT_REFUSED, body[1])
        self.connects += 1
        if self.storm_limit:
            farewell = self.room(c, 2)
            if farewell == NULL:
                return 0
            farewell[0] = 0xE0          # DISCONNECT
            farewell[1] = 0
            c.out_size += 2
            self.flush(client)
            self.hang_up(client)
            if self.storm_opened < self.storm_limit:
                self.open(client)
            return 0
        c.state = CLIENT_READY
        self.ready += 1
        if self.opened < self.to_open:
            self.open(self.opened)
            self.opened += 1
        if self.version == 5 and self.qos and c.publisher >= 0:
            receive_maximum = receive_maximum_of(body + 2, body + size)
            if receive_maximum < self.publishers[c.publisher].window:
                self.publishers[c.publisher].window = receive_maximum
                self.publishers[c.publisher].batch = min(self.publishers[c.publisher].batch, receive_maximum)
        return 1

    cdef int on_publish(self, uint32_t client, uint8_t first, const uint8_t* body, uint32_t size,
                        int64_t now) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        cdef publisher_t* p
        cdef slot_t* slot
        cdef stamp_t stamp
        cdef uint8_t* ack
        cdef uint32_t at, used, length, offset, topic
        cdef int qos = (first >> 1) & 3
        cdef int is_new
        if size < 2:
            return self.fail(client, FAULT_MALFORMED, first)
        at = 2 + (<uint32_t>body[0] << 8 | body[1])
        if qos:
            if at + 2 > size:
                return self.fail(client, FAULT_MALFORMED, first)
            ack = self.room(c, 4)
            if ack == NULL:
                return 0
            ack[0] = 0x40 if qos == 1 else 0x50
            ack[1] = 2
            ack[2] = body[at]
            ack[3] = body[at + 1]
            c.out_size += 4
            at += 2
            self.unreleased += qos == 2
        if self.version == 5 and at < size:
            used = varint_size(body + at, body + size, &length)
            if used == 0 or used > 4:
                return self.fail(client, FAULT_MALFORMED, first)
            at += used + length
        if at > size:
            return self.fail(client, FAULT_MALFORMED, first)
        if size - at != self.payload_size or qos != self.qos:
            self.foreign += 1
            return 1
        memcpy(&stamp, body + at, sizeof(stamp))
        offset = stamp.publisher - c.first_publisher
        if stamp.run != self.run_id or offset >= c.publisher_count:
            self.foreign += 1
            return 1
        p = &self.publishers[stamp.publisher]
        if stamp.number >= p.next:
            self.foreign += 1
            return 1
        if c.due != NULL:
            topic = topic_of(p, stamp.number)
            if not c.due[topic >> 3] >> (topic & 7) & 1:
                self.foreign += 1
                return 1
        is_new = flow_note(&self.flows[c.first_flow + offset], stamp.number)
        if is_new < 0:
            return self.fail(client, FAULT_MEMORY, 0)
        if not is_new:
            return 1
        self.received += 1
        if self.is_replay:
            return 1
        self.latency.note(now - stamp.sent_ns)
        slot = &p.ring[stamp.number & p.mask]
        if slot.number == stamp.number and slot.copies:
            slot.copies -= 1
            self.settle(stamp.publisher, slot)
        else:
            self.foreign += 1           # more copies than there are subscribers due
        return 1

    cdef int on_ack(self, uint32_t client, uint8_t first, const uint8_t* body, uint32_t size) noexcept nogil:
        cdef client_t* c = &self.clients[client]
        cdef publisher_t* p
        cdef slot_t* slot
        cdef uint8_t* answer
        cdef uint8_t kind = first >> 4
        cdef uint32_t packet_id = <uint32_t>body[0] << 8 | body[1]
        if size > 2 and body[2] >= 0x80:
            return self.fail(client, FAULT_ACK, body[2])
        if kind == 5 or kind == 6:      # PUBREC -> PUBREL, PUBREL -> PUBCOMP
            answer = self.room(c, 4)
            if answer == NULL:
                return 0
            answer[0] = 0x62 if kind == 5 else 0x70
            answer[1] = 2
            answer[2] = body[0]
            answer[3] = body[1]
            c.out_size += 4
        if kind == 6:
            self.unreleased -= 1
            return 1
        if c.publisher < 0:
            return self.fail(client, FAULT_MALFORMED, first)
        p = &self.publishers[c.publisher]
        if packet_id == 0 or packet_id > p.mask + 1:
            return self.fail(client, FAULT_MALFORMED, first)
        slot = &p.ring[packet_id - 1]
        if kind == 5 and self.qos == 2 and slot.phase == SLOT_AWAITS_FIRST:
            slot.phase = SLOT_AWAITS_PUBCOMP
        elif kind == 4 and self.qos == 1 and slot.phase == SLOT_AWAITS_FIRST:
            slot.phase = SLOT_ACKNOWLEDGED
        elif kind == 7 and slot.phase == SLOT_AWAITS_PUBCOMP:
            slot.phase = SLOT_ACKNOWLEDGED
        else:
            return self.fail(client, FAULT_MALFORMED, first)
        self.settle(<uint32_t>c.publisher, slot)
        return 1

    cdef void on_pingresp(self, uint32_t index) noexcept nogil:
        # Packets of one connection are handled in order, so the batch before the PINGREQ has been processed.
        cdef publisher_t* p = &self.publishers[index]
        cdef slot_t* slot
        cdef uint64_t end = min(p.fenced + p.batch, p.next)
        while p.fenced < end:
            slot = &p.ring[p.fenced & p.mask]
            slot.phase = SLOT_ACKNOWLEDGED
            self.settle(index, slot)
            p.fenced += 1


cdef uint8_t* copied(bytes data) except NULL:
    cdef uint8_t* copy = <uint8_t*>malloc(len(data) + 1)
    if copy == NULL:
        raise MemoryError
    memcpy(copy, <const uint8_t*>data, len(data))
    return copy


cdef uint16_t receive_maximum_of(const uint8_t* at, const uint8_t* end) noexcept nogil:
    # Receive Maximum among CONNACK's properties (MQTT 5 §3.2.2.3.3); 65535 when it isn't there.
    cdef uint32_t length
    cdef uint32_t used = varint_size(at, end, &length)
    if used == 0 or used > 4 or at + used + length > end:
        return 65535
    at += used
    end = at + length
    while at < end:
        if at[0] == 0x21 and at + 3 <= end:
            return <uint16_t>(at[1] << 8 | at[2])
        if at[0] in (0x24, 0x25, 0x28, 0x29, 0x2A):
            at += 2
        elif at[0] in (0x13, 0x22):
            at += 3
        elif at[0] in (0x11, 0x27):
            at += 5
        elif at[0] == 0x26 and at + 3 <= end:
            at += 3 + (at[1] << 8 | at[2])
            if at + 2 <= end:
                at += 2 + (at[0] << 8 | at[1])
        elif at[0] in (0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F) and at + 3 <= end:
            at += 3 + (at[1] << 8 | at[2])
        else:
            break
    return 65535


STAMP_SIZE = sizeof(stamp_t)
