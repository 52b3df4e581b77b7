"""The asyncio face of a connection: a Protocol around the same state machine that the poller drives."""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from mqttcore.engine.connection cimport Connection
from mqttcore.engine.engine cimport Engine
from mqttcore.engine.network_connection cimport STATE_CLOSED
from mqttcore.engine.outbuf cimport out_clear, out_take
from mqttcore.net.gate cimport GATE_OPEN, is_welcome, new_gate
from mqttcore.net.websocket cimport ws_free, ws_init, ws_receive, ws_take

import asyncio
import logging
import socket
import time

log = logging.getLogger("mqttcore.net")

cdef enum:
    CHOKE = 2                 # times the high-water mark of unread answers from which on we do not read their receiver
    LINGER_MS = 2000          # a closed connection's last bytes may take this long
    PATIENCE_MS = 1000        # a handshake that was silent for less does not have to make room for another
    UNMASK_SIZE = 65536
    BUFFER_MAXIMUM = 65536    # bytes in a transport's buffer from which on it is full
    LOOK_MS = 200


cdef class StreamConnection(Connection):
    """An asyncio Protocol; give it to `loop.create_server`, or to `transport.set_protocol` and call connection_made.

    when_closed: called with the connection when its transport is gone. pipes: TlsPipes, for listeners with TLS.
    """

    def __init__(
        self, engine: Engine, listener: object = None, peer: object = None, *, when_closed: object = None,
        pipes: object = None
    ) -> None:
        self.when_closed = when_closed
        self.pipes = pipes

    @property
    def tls(self) -> object:
        """See Connection.tls."""
        return None if self.gate is None else self.gate.tls_info

    @property
    def proxy(self) -> object:
        """See Connection.proxy."""
        return None if self.gate is None else self.gate.proxy

    cdef int keep_alive_changed(self) except -1:
        # What we send and nobody acknowledges says the same as silence.
        cdef object option = getattr(socket, "TCP_USER_TIMEOUT", None)
        cdef object sock
        if option is None or not self.keep_alive_s or self.transport is None:
            return 0
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, option, self.keep_alive_s * 1500)
        return 0

    def connection_made(self, transport: object) -> None:
        """Asyncio: the transport is there."""
        self.transport = transport
        self.has_tls = transport.get_extra_info("ssl_object") is not None
        if self.has_tls:
            transport.set_write_buffer_limits(BUFFER_MAXIMUM)     # as others have; it would be half a megabyte
        if self.given_peer is None:
            self.given_peer = transport.get_extra_info("peername") or None
            if isinstance(self.given_peer, tuple):
                self.given_peer = self.given_peer[:2]
        if self.listener is not None:
            self.listener.connections += 1
            if not self.greet():
                transport.abort()
        if self.state == STATE_CLOSED:
            transport.abort()         # we gave it up while it was on its way

    cdef bint greet(self) except -1:
        # What the listener wants of a new connection before its first byte; False: nothing to do with it.
        cdef object listener = self.listener
        cdef StreamConnection oldest
        if 0 < listener.max_connections < listener.connections:
            listener.refused += 1
            self.failed_below("max_connections")
            return False
        if listener.admission is not None and not listener.admission.take(self.core.now_ms):
            self.failed_below("connection_rate")
            return False
        if not is_welcome(self, listener):
            return False
        if not listener.is_gated:
            return True
        if len(listener.handshaking) >= listener.handshakes_maximum:
            # asyncio has accepted it already: it cannot wait, as it does with the poller.
            oldest = next(iter(listener.handshaking.values()))
            if self.core.now_ms - oldest.gate.heard_ms < PATIENCE_MS:
                listener.refused += 1
                self.failed_below("handshakes_maximum")
                return False
            listener.handshakes_evicted += 1
            oldest.failed_below("made room for a newer handshake")
            oldest.abort()
            oldest.gate.leave(oldest)
        self.gate = new_gate(self, listener, self.pipes)
        return True

    def data_received(self, data: bytes) -> None:
        """Asyncio: bytes came."""
        cdef const uint8_t[::1] view = data
        cdef int64_t unread
        self.core.now_ms = time.monotonic_ns() // 1_000_000
        if not view.shape[0]:
            return
        if self.gate is None:
            self.take(&view[0], view.shape[0])
        elif self.state != STATE_CLOSED:
            if not self.gate.take(self, &view[0], view.shape[0]):
                self.lost()
            if self.gate.unsent is not None:
                self.mark_dirty()
        (<Engine>self.core).flush_dirty()
        (<Engine>self.core).wake()
        unread = self.out.end - self.out.start + (0 if self.gate is None else self.gate.unsent_size())
        if (
            self.is_full and self.transport is not None
            and unread >= CHOKE * <int64_t>self.core.limits.output_high_water_bytes
        ):
            # It sends and does not read: what we have to answer may not grow without bounds.
            self.is_choked = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """Asyncio: the peer closes; so do we."""

    def pause_writing(self) -> None:
        """Asyncio: the transport's buffer is over its high-water mark."""
        self.is_full = True
        if self.has_tls and self.look_handle is None:
            self.look_at_backlog()

    def look_at_backlog(self) -> None:
        """Watch the buffer of a transport with TLS while it is full: what OpenSSL answers by itself goes past us."""
        self.look_handle = None
        if self.transport is None or not self.is_full or self.is_choked:
            return
        if self.transport.get_write_buffer_size() >= BUFFER_MAXIMUM + CHOKE * <int64_t>self.core.limits.output_high_water_bytes:
            self.is_choked = True
            self.transport.pause_reading()
        else:
            self.look_handle = asyncio.get_running_loop().call_later(LOOK_MS / 1000, self.look_at_backlog)

    def resume_writing(self) -> None:
        """Asyncio: it is below the low-water mark."""
        self.is_full = False
        if self.is_choked:
            self.is_choked = False
            self.paused_changed()
        self.mark_dirty()
        (<Engine>self.core).wake()

    def connection_lost(self, error: Exception | None = None) -> None:
        """Asyncio: the transport is gone."""
        self.was_reset = error is not None
        if self.transport is not None and self.listener is not None:
            self.listener.connections -= 1
        if self.is_counted:
            self.is_counted = False
            self.listener.admission.leave(self.given_peer)
        if self.gate is not None:
            self.gate.leave(self)
        self.transport = None
        for handle in (self.linger_handle, self.look_handle):
            if handle is not None:
                handle.cancel()
        self.linger_handle = self.look_handle = None
        self.lost()
        out_clear(&self.out)
        (<Engine>self.core).wake()
        if self.when_closed is not None:
            self.when_closed(self)
            self.when_closed = None

    def abort(self) -> None:
        """Cut the transport without further ado; one that has not come yet, as soon as it does."""
        if self.transport is not None:
            self.transport.abort()
        else:
            self.lost()

    cdef int give_up(self) except -1:
        self.abort()
        return 0

    cdef int paused_changed(self) except -1:
        if self.transport is not None and not self.transport.is_closing():
            if self.is_paused or self.is_choked:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()
        return 0

    cdef int take(self, const uint8_t* data, Py_ssize_t size) except -1:
        return self.feed(data, size)

    cdef str awaited(self):
        return None if self.gate is None or self.gate.stage == GATE_OPEN else self.gate.awaited()

    cdef bytes due(self):
        return out_take(&self.out)

    cdef int flush(self) except -1:
        if self.transport is None or self.cork:
            return 0
        if self.state == STATE_CLOSED:
            return self.finish()
        return self.drain()

    cdef bint write_out(self) except -1:
        if self.is_full:
            return False
        self.write_due(False)
        return not self.is_full

    cdef int write_due(self, bint is_last) except -1:
        cdef bytes data
        if self.is_sealed():
            return self.write_sealed(is_last)
        self.core.counters.bytes_out += self.out.pending
        data = self.due()
        if data:
            self.transport.write(data)
        return 0

    cdef bint is_sealed(self) noexcept:
        return self.gate is not None and (self.gate.channel is not None or self.gate.stage != GATE_OPEN)

    cdef int write_sealed(self, bint is_last) except -1:
        # Through the gate; the transport keeps what the kernel does not take.
        cdef bytes sealed
        while self.gate.prepare(&self.out, is_last):
            sealed = self.gate.unsent[self.gate.unsent_at:]
            self.gate.sent(len(sealed))
            self.core.counters.bytes_out += len(sealed)
            self.transport.write(sealed)
            if self.is_full and not is_last:
                return 0
        return 0

    cdef int finish(self) except -1:
        # Everything goes to the transport, full or not: it is the last. The peer gets a little time to read it.
        if self.transport.is_closing():
            return 0
        self.write_due(True)
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.linger_handle = asyncio.get_running_loop().call_later(LINGER_MS / 1000, self.transport.abort)
        return 0


cdef class WebSocketStream(StreamConnection):
    """MQTT in WebSocket frames on an asyncio transport whose HTTP request has been read.

    upgraded: the HTTP answer that agrees, written first. message_bytes_maximum: of one WebSocket message.
    pings_per_s_maximum: control frames taken in a second. tls_info: of the transport's TLS, or of the proxy's. proxy:
    what a PROXY header said. certified_name: whom a certificate authenticates. is_counted: its address was admitted.
    """

    def __init__(
        self,
        engine: Engine,
        listener: object = None,
        peer: object = None,
        *,
        upgraded: bytes,
        message_bytes_maximum: int,
        pings_per_s_maximum: int,
        tls_info: object = None,
        proxy: object = None,
        certified_name: object = None,
        is_counted: bool = False,
        when_closed: object = None,
    ) -> None:
        self.when_closed = when_closed
        self.tls_info = tls_info
        self.proxy_info = proxy
        self.certified_name = certified_name
        self.is_counted = is_counted
        if proxy is not None and proxy.source is not None:
            self.given_peer = proxy.source
        ws_init(&self.ws, upgraded, message_bytes_maximum, pings_per_s_maximum)

    def __dealloc__(self):
        ws_free(&self.ws)

    @property
    def tls(self) -> object:
        """See Connection.tls."""
        return self.tls_info

    @property
    def proxy(self) -> object:
        """See Connection.proxy."""
        return self.proxy_info

    def connection_made(self, transport: object) -> None:
        """Asyncio: the transport is there; the answer to the upgrade is written."""
        StreamConnection.connection_made(self, transport)
        self.mark_dirty()
        (<Engine>self.core).wake()

    cdef bint greet(self) except -1:
        self.address_known()
        return True                   # whoever read the request has looked at it already

    cdef int take(self, const uint8_t* data, Py_ssize_t size) except -1:
        # Unmasks a copy: bytes objects may not be written to. Its own, because what is fed may lead here again.
        cdef Py_ssize_t part
        cdef uint8_t* copy = <uint8_t*>malloc(min(size, <Py_ssize_t>UNMASK_SIZE))
        if copy == NULL:
            raise MemoryError
        try:
            while size:
                part = min(size, <Py_ssize_t>UNMASK_SIZE)
                memcpy(copy, data, part)
                ws_receive(&self.ws, self, copy, part)
                data += part
                size -= part
        finally:
            free(copy)
        return 0

    cdef bytes due(self):
        return ws_take(&self.ws, &self.out, self.state == STATE_CLOSED, self.close_reason)
