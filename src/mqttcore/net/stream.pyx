"""The asyncio face of a connection: a Protocol around the same state machine that the poller drives."""

from libc.stdint cimport int64_t, uint8_t

from mqttcore.engine.connection cimport STATE_CLOSED, Connection
from mqttcore.engine.engine cimport Engine
from mqttcore.engine.outbuf cimport out_clear, out_take

import asyncio
import time

cdef enum:
    CHOKE = 2                 # times the high-water mark of unread answers from which on we do not read their receiver
    PUMP_ROUNDS = 8           # times a connection's queue is taken up again within one flush
    LINGER_MS = 2000          # a closed connection's last bytes may take this long


cdef class StreamConnection(Connection):
    """An asyncio Protocol; give it to `loop.create_server`, or to `transport.set_protocol` and call connection_made.

    when_closed: called with the connection when its transport is gone.
    """

    def __init__(self, engine: Engine, listener: object = None, peer: object = None, *, when_closed: object = None) -> None:
        self.when_closed = when_closed

    def connection_made(self, transport: object) -> None:
        """Asyncio: the transport is there."""
        self.transport = transport
        if self.given_peer is None:
            self.given_peer = transport.get_extra_info("peername")
        if self.listener is not None:
            self.listener.connections += 1
            if 0 < self.listener.max_connections < self.listener.connections:
                self.listener.refused += 1
                transport.abort()
        if self.state == STATE_CLOSED:
            transport.abort()         # we gave it up while it was on its way

    def data_received(self, data: bytes) -> None:
        """Asyncio: bytes came."""
        cdef const uint8_t[::1] view = data
        self.core.now_ms = time.monotonic_ns() // 1_000_000
        if view.shape[0]:
            self.feed(&view[0], view.shape[0])
        (<Engine>self.core).flush_dirty()
        (<Engine>self.core).wake()
        if (
            self.is_full and self.transport is not None
            and self.out.end - self.out.start >= CHOKE * <int64_t>self.core.limits.output_high_water_bytes
        ):
            # It sends and does not read: what we have to answer may not grow without bounds.
            self.is_choked = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """Asyncio: the peer closes; so do we."""

    def pause_writing(self) -> None:
        """Asyncio: the transport's buffer is over its high-water mark."""
        self.is_full = True

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
        if self.transport is not None and self.listener is not None:
            self.listener.connections -= 1
        self.transport = None
        if self.linger_handle is not None:
            self.linger_handle.cancel()
            self.linger_handle = None
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

    cdef int paused_changed(self) except -1:
        if self.transport is not None and not self.transport.is_closing():
            if self.is_paused or self.is_choked:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()
        return 0

    cdef int flush(self) except -1:
        cdef int rounds = 0
        if self.transport is None or self.cork:
            return 0
        if self.state == STATE_CLOSED:
            return self.finish()
        while not self.is_full:
            if self.out.pending:
                self.core.counters.bytes_out += self.out.pending
                self.transport.write(out_take(&self.out))
            if self.is_full or self.session is None or not self.session.has_backlog():
                return 0
            if rounds == PUMP_ROUNDS:
                self.mark_dirty()
                return 0
            rounds += 1
            self.session.pump()
            if not self.out.pending:
                if self.session.has_paused():
                    self.mark_dirty()
                return 0
        return 0

    cdef int finish(self) except -1:
        # Everything goes to the transport, full or not: it is the last. The peer gets a little time to read it.
        if self.transport.is_closing():
            return 0
        if self.out.pending:
            self.core.counters.bytes_out += self.out.pending
            self.transport.write(out_take(&self.out))
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.linger_handle = asyncio.get_running_loop().call_later(LINGER_MS / 1000, self.transport.abort)
        return 0
