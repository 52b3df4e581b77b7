"""PROXY header and TLS in front of a connection; gate.pxd has the picture."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from mqttcore.engine.connection cimport Connection
from mqttcore.engine.network_connection cimport STATE_CLOSED
from mqttcore.engine.outbuf cimport MAX_IOV, iov_t, out_clear, out_consume, out_gather, outbuf_t
from mqttcore.net.channel cimport CIPHER_SIZE, SEAL_SIZE, TlsChannel, TlsPipes

import logging

from mqttcore.net.proxy_header import BadHeader, parse_header
from mqttcore.net.tls import describe

log = logging.getLogger("mqttcore.net")


cdef bint is_admitted(Connection connection, object listener) except -1:
    # Counts a connection for its client's address, which is known now; False: the listener has too many of it.
    connection.address_known()
    if listener.admission is None or not listener.admission.counts_addresses:
        return True
    reason = listener.admission.enter(connection.peer, connection.core.now_ms)
    if reason is None:
        connection.is_counted = True
        return True
    log.info("listener %s: %s: %s", listener.name, connection.peer, reason)
    connection.failed_below(reason)
    return False


cdef bint is_welcome(Connection connection, object listener) except -1:
    if listener.proxy_version is None:
        return is_admitted(connection, listener)
    if listener.proxy_trust.covers(connection.peer):
        return True                   # its client is admitted once the header tells of it
    listener.proxy_rejected += 1
    log.info("listener %s: %s is not among proxy_trusted: closed", listener.name, connection.peer)
    connection.failed_below("not among proxy_trusted")
    return False


cdef Gate new_gate(Connection connection, object listener, TlsPipes pipes):
    cdef Gate gate = Gate(listener, pipes)
    gate.heard_ms = connection.core.now_ms
    connection.set_deadline(listener.handshake_timeout_ms)
    listener.handshaking[id(connection)] = connection
    return gate


cdef class Gate:
    """The gate of one new connection. listener: a BoundListener with TLS or PROXY protocol."""

    def __init__(self, listener: object, pipes: TlsPipes) -> None:
        self.listener = listener
        self.pipes = pipes
        if listener.proxy_version is None:
            self.start_tls()
        else:
            self.held = b""

    def start_tls(self) -> None:
        """Go on to TLS, or to plain MQTT where the listener has none."""
        tls = self.listener.tls
        if tls is None:
            self.stage = GATE_OPEN
        else:
            self.channel = TlsChannel(self.pipes, tls.context)
            self.stage = GATE_HANDSHAKE

    @property
    def tls_info(self) -> object:
        """TlsInfo of the connection, or of the one that the proxy ended; None: neither has TLS, or not yet."""
        if self.info is None:
            if self.channel is not None and self.channel.is_open and self.channel.fault is None:
                self.info = describe(self.channel.session, self.channel.server_name, self.listener.tls.settings.identity)
            elif self.channel is None and self.proxy is not None:
                self.info = self.proxy.tls
        return self.info

    cdef bint take(self, Connection connection, const uint8_t* data, Py_ssize_t size) except -1:
        self.heard_ms = connection.core.now_ms
        if self.stage == GATE_PROXY:
            return self.take_header(connection, data, size)
        if self.channel is None:
            connection.feed(data, size)
            return True
        return self.take_records(connection, data, size)

    cdef bint take_header(self, Connection connection, const uint8_t* data, Py_ssize_t size) except -1:
        cdef bytes rest
        self.held += data[:size]
        try:
            found = parse_header(self.held, self.listener.proxy_version)
        except BadHeader as error:
            self.listener.proxy_rejected += 1
            return self.fail(connection, f"PROXY header: {error}")
        if found is None:
            return True
        used, self.proxy = found
        rest = self.held[used:]
        self.held = None
        if self.proxy.source is not None:
            connection.given_peer = self.proxy.source
            if not is_admitted(connection, self.listener):
                return self.leave(connection)
        else:
            connection.address_known()
        self.start_tls()
        if self.channel is None:
            self.opened(connection)
        else:
            connection.set_deadline(self.listener.handshake_timeout_ms)
        if not rest:
            return True
        return self.take(connection, <const uint8_t*>PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest))

    cdef bint take_records(self, Connection connection, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t got, part
        cdef TlsChannel channel = self.channel
        while size and not channel.is_ended:
            part = min(size, <Py_ssize_t>CIPHER_SIZE)
            got = channel.receive(data, part)
            data += part
            size -= part
            if channel.answer is not None:
                self.unsent = channel.answer if self.unsent is None else self.unsent[self.unsent_at:] + channel.answer
                self.unsent_at = 0
                channel.answer = None
            # A broken session does not say any more whose it is: of what it brought, only a client known already is served.
            if self.stage == GATE_HANDSHAKE and channel.is_open and channel.fault is None:
                self.opened(connection)
            if got and connection.state != STATE_CLOSED and (channel.fault is None or connection.session is not None):
                connection.feed(self.pipes.plain, got)
        if channel.fault is not None:
            return self.fail(connection, f"TLS: {channel.fault}")
        return not channel.is_ended

    cdef int opened(self, Connection connection) except -1:
        self.stage = GATE_OPEN
        self.leave(connection)
        connection.set_deadline(self.listener.connect_timeout_ms or connection.core.limits.connect_timeout_ms)
        if self.channel is not None:
            self.listener.handshakes += 1
            if self.channel.session.session_reused:
                self.listener.handshakes_resumed += 1
        if self.listener.certificate_authenticates:
            info = self.tls_info
            if info is not None and info.is_verified:
                connection.certified_name = info.identity or ""       # "": a certificate that names nobody
            elif self.channel is not None and self.listener.tls.settings.client_certificate == "required":
                connection.certified_name = ""        # resumed with one that has expired meanwhile
        return 0

    cdef bint fail(self, Connection connection, str reason) except -1:
        log.info("listener %s: %s: %s", self.listener.name, connection.peer, reason)
        connection.failed_below(reason)
        return self.leave(connection)

    cdef str awaited(self):
        return "PROXY header" if self.stage == GATE_PROXY else "TLS handshake"

    cdef bint leave(self, Connection connection) except -1:
        if self.listener.handshaking.pop(id(connection), None) is not None and self.stage == GATE_HANDSHAKE:
            self.listener.handshakes_failed += 1      # for whatever reason: a fault, the client, the deadline
        return False

    cdef bint prepare(self, outbuf_t* out, bint is_last) except -1:
        cdef iov_t iov[MAX_IOV]
        cdef int count, i
        cdef size_t total = 0
        cdef size_t part
        if self.unsent is not None:
            return True
        if self.channel is None or self.stage != GATE_OPEN:
            return False
        if self.channel.fault is not None:
            out_clear(out)            # the session is broken: the alert was its last word
            return False
        if out.pending:
            count = out_gather(out, iov, MAX_IOV)
            if count == 1:
                total = min(iov[0].size, <size_t>SEAL_SIZE)
                self.unsent = self.channel.seal(<uint8_t*>iov[0].base, total)
            else:
                for i in range(count):            # together: every record costs
                    part = min(iov[i].size, SEAL_SIZE - total)
                    memcpy(self.pipes.gathered + total, iov[i].base, part)
                    total += part
                self.unsent = self.channel.seal(self.pipes.gathered, total)
            out_consume(out, total)
        elif is_last and not self.has_parted:
            self.has_parted = True
            self.unsent = self.channel.farewell() or None
        self.unsent_at = 0
        return self.unsent is not None

    cdef int sent(self, Py_ssize_t size) except -1:
        self.unsent_at += size
        if self.unsent_at == PyBytes_GET_SIZE(self.unsent):
            self.unsent = None
            self.unsent_at = 0
        return 0

    cdef Py_ssize_t unsent_size(self) noexcept:
        return 0 if self.unsent is None else PyBytes_GET_SIZE(self.unsent) - self.unsent_at
