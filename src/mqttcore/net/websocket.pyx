"""WebSocket framing without a socket; websocket.pxd shows how it lies.

Clauses are those of RFC 6455.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from mqttcore.codec.codes cimport RC_PACKET_TOO_LARGE, RC_PROTOCOL_ERROR, RC_SERVER_SHUTTING_DOWN
from mqttcore.engine.connection cimport Connection
from mqttcore.engine.network_connection cimport STATE_CLOSED
from mqttcore.engine.outbuf cimport MAX_IOV, iov_t, out_consume, out_gather, outbuf_t

import logging

log = logging.getLogger("mqttcore.net")

cdef enum:
    FIN = 0x80
    MASKED = 0x80
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10
    CONTROL_MAXIMUM = 125             # §5.5
    REASON_MAXIMUM = 123              # bytes of text in Close, behind its code

cdef enum:                            # §7.4.1
    CLOSE_NORMAL = 1000
    CLOSE_GOING_AWAY = 1001
    CLOSE_PROTOCOL_ERROR = 1002
    CLOSE_UNSUPPORTED_DATA = 1003
    CLOSE_INVALID_DATA = 1007
    CLOSE_POLICY_VIOLATION = 1008
    CLOSE_TOO_BIG = 1009


cdef int ws_init(websocket_t* ws, bytes upgraded, uint64_t message_maximum, uint32_t pings_maximum) except -1:
    memset(ws, 0, sizeof(websocket_t))
    ws.message_maximum = message_maximum
    ws.pings_maximum = pings_maximum
    ws.second = -1
    ws.between_size = <uint32_t>PyBytes_GET_SIZE(upgraded)
    if ws.between_size:
        ws.between = copied(<const uint8_t*>PyBytes_AS_STRING(upgraded), ws.between_size)
    return 0


cdef void ws_free(websocket_t* ws) noexcept:
    free(ws.control)
    free(ws.between)
    free(ws.pong)
    free(ws.close)
    ws.control = ws.between = ws.pong = ws.close = NULL


cdef uint8_t* copied(const uint8_t* data, Py_ssize_t size) except NULL:
    cdef uint8_t* copy = <uint8_t*>malloc(size)
    if copy == NULL:
        raise MemoryError
    memcpy(copy, data, size)
    return copy


# --- in -----------------------------------------------------------------------------------------------------------------


cdef void unmask(uint8_t* data, Py_ssize_t size, uint8_t* mask) noexcept nogil:
    # §5.3, eight bytes at a time; then turns the mask to where the next byte begins.
    cdef uint32_t narrow
    cdef uint64_t wide, word
    cdef Py_ssize_t i = 0
    cdef uint8_t turned[4]
    cdef int turn = size & 3
    memcpy(&narrow, mask, 4)
    wide = <uint64_t>narrow | <uint64_t>narrow << 32
    while size - i >= 8:
        memcpy(&word, data + i, 8)
        word ^= wide
        memcpy(data + i, &word, 8)
        i += 8
    while i < size:
        data[i] ^= mask[i & 3]
        i += 1
    if turn:
        for i in range(4):
            turned[i] = mask[(i + turn) & 3]
        memcpy(mask, turned, 4)


cdef int ws_receive(websocket_t* ws, Connection connection, uint8_t* data, Py_ssize_t size) except -1:
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t take
    while ws.state == WS_OPEN:
        if ws.is_in_payload:
            take = size - at if <uint64_t>(size - at) < ws.payload_left else <Py_ssize_t>ws.payload_left
            unmask(data + at, take, ws.mask)
            ws.payload_left -= take
            if ws.head[0] & 0x08:
                if take:
                    memcpy(ws.control + ws.control_size, data + at, take)
                ws.control_size += <uint8_t>take
            elif take:
                connection.feed(data + at, take)      # ignored once the engine is done with the connection
            at += take
            if ws.payload_left:
                return 0
            ws.is_in_payload = False
            ws.head_size = 0
            if ws.head[0] & 0x08:
                on_control(ws, connection)
        if at == size:
            return 0
        at += take_head(ws, connection, data + at, size - at)
    return 0


cdef Py_ssize_t take_head(websocket_t* ws, Connection connection, const uint8_t* data, Py_ssize_t size) except -1:
    # Takes bytes of a head, which can be torn anywhere; returns how many.
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t take
    cdef uint8_t need
    cdef uint8_t short_size
    while at < size:
        need = 2
        if ws.head_size >= 2:
            short_size = ws.head[1] & 0x7F
            need = 14 if short_size == 127 else 8 if short_size == 126 else 6
        take = min(<Py_ssize_t>(need - ws.head_size), size - at)
        memcpy(ws.head + ws.head_size, data + at, take)
        ws.head_size += <uint8_t>take
        at += take
        if ws.head_size == 2:
            if not check_start(ws, connection):
                return at
        elif ws.head_size == need:
            begin_payload(ws, connection)
            return at
    return at


cdef int check_start(websocket_t* ws, Connection connection) except -1:
    # The first two bytes of a head; 0: the peer broke the framing.
    cdef uint8_t opcode = ws.head[0] & 0x0F
    if ws.head[0] & 0x70:             # §5.2: no extension was agreed on
        return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "a reserved bit is set")
    if not ws.head[1] & MASKED:       # §5.1
        return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "a frame is not masked")
    if opcode & 0x08:
        if opcode > OP_PONG:
            return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "unknown kind of control frame")
        if not ws.head[0] & FIN or ws.head[1] & 0x7F > CONTROL_MAXIMUM:       # §5.5
            return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "a control frame is fragmented or too long")
        return 1
    if opcode == OP_TEXT:             # [MQTT-6.0.0-1]
        return fail(ws, connection, CLOSE_UNSUPPORTED_DATA, "MQTT takes binary frames only")
    if opcode > OP_BINARY:
        return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "unknown kind of frame")
    if (opcode == OP_CONTINUATION) != ws.is_in_message:       # §5.4
        return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "a fragment is out of place")
    return 1


cdef int begin_payload(websocket_t* ws, Connection connection) except -1:
    cdef uint8_t short_size = ws.head[1] & 0x7F
    cdef uint64_t size = short_size
    cdef int i
    if short_size >= 126:
        size = 0
        for i in range(2, 4 if short_size == 126 else 10):
            size = size << 8 | ws.head[i]
        if size < (126 if short_size == 126 else 0x10000) or size >> 63:      # §5.2
            return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "a frame's length is not in its shortest form")
    memcpy(ws.mask, ws.head + ws.head_size - 4, 4)
    if ws.head[0] & 0x08:
        if connection.core.now_ms // 1000 != ws.second:
            ws.second = connection.core.now_ms // 1000
            ws.pings = 0
        ws.pings += 1
        if ws.pings > ws.pings_maximum:
            return fail(ws, connection, CLOSE_POLICY_VIOLATION, "too many control frames")
        ws.control_size = 0
        if size and ws.control == NULL:
            ws.control = <uint8_t*>malloc(CONTROL_MAXIMUM)
            if ws.control == NULL:
                raise MemoryError
    else:
        if not ws.is_in_message:
            ws.message_size = 0
        # Added without overflow: the sum so far is not over the maximum.
        if size > ws.message_maximum - ws.message_size:
            return fail(ws, connection, CLOSE_TOO_BIG, "a message is too long")
        ws.message_size += size
        ws.is_in_message = not ws.head[0] & FIN
    ws.payload_left = size
    ws.is_in_payload = True
    return 0


cdef int on_control(websocket_t* ws, Connection connection) except -1:
    # A whole control frame.
    cdef uint8_t opcode = ws.head[0] & 0x0F
    cdef uint8_t size = ws.control_size
    if opcode == OP_CLOSE:
        on_close(ws, connection)
    elif opcode == OP_PING and connection.state != STATE_CLOSED:
        free(ws.pong)                 # §5.5.3: only the most recent Ping has to be answered
        ws.pong = <uint8_t*>malloc(2 + size)
        if ws.pong == NULL:
            raise MemoryError
        ws.pong[0] = FIN | OP_PONG
        ws.pong[1] = size
        if size:
            memcpy(ws.pong + 2, ws.control, size)
        ws.pong_size = 2 + size
        connection.mark_dirty()
    free(ws.control)
    ws.control = NULL
    return 0


cdef int on_close(websocket_t* ws, Connection connection) except -1:
    cdef uint16_t code = CLOSE_NORMAL
    if ws.control_size == 1:
        return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "Close with half a code")
    if ws.control_size:
        code = <uint16_t>(ws.control[0] << 8 | ws.control[1])
        # §7.4.1, §7.4.2: codes that may be sent.
        if not (1000 <= code <= 1014 and not 1004 <= code <= 1006 or 3000 <= code < 5000):
            return fail(ws, connection, CLOSE_PROTOCOL_ERROR, "Close with a code that is not for frames")
        try:
            ws.control[2:ws.control_size].decode("utf-8")
        except UnicodeDecodeError:
            return fail(ws, connection, CLOSE_INVALID_DATA, "Close with a reason that is not UTF-8")
    set_close(ws, code, b"")          # §5.5.1: its code comes back
    ws.state = WS_CLOSED_BY_PEER
    connection.lost()
    return 0


cdef int fail(websocket_t* ws, Connection connection, uint16_t code, str text) except -1:
    # The peer broke the framing: Close with the code follows what is pending. Always 0.
    ws.state = WS_FAILED
    if connection.state == STATE_CLOSED:
        return 0
    connection.core.counters.protocol_errors += 1
    log.info("client %s at %s: WebSocket %d: %s", connection.client_id, connection.peer, code, text)
    connection.failed_below(f"WebSocket: {text}")
    set_close(ws, code, text.encode())
    connection.close_with(RC_PACKET_TOO_LARGE if code == CLOSE_TOO_BIG else RC_PROTOCOL_ERROR, True, None, False)
    return 0


# --- out ----------------------------------------------------------------------------------------------------------------


cdef int set_close(websocket_t* ws, uint16_t code, bytes text) except -1:
    cdef Py_ssize_t size = min(<Py_ssize_t>len(text), <Py_ssize_t>REASON_MAXIMUM)
    free(ws.close)
    ws.close = <uint8_t*>malloc(4 + size)
    if ws.close == NULL:
        raise MemoryError
    ws.close[0] = FIN | OP_CLOSE
    ws.close[1] = <uint8_t>(2 + size)
    ws.close[2] = <uint8_t>(code >> 8)
    ws.close[3] = <uint8_t>code
    memcpy(ws.close + 4, <const char*>text, size)
    ws.close_size = <uint8_t>(4 + size)
    return 0


cdef void begin_frame(websocket_t* ws, uint32_t size) noexcept:
    cdef uint8_t* head = ws.frame_head
    cdef uint8_t at = 2
    cdef int i
    head[0] = FIN | OP_BINARY
    if size < 126:
        head[1] = <uint8_t>size
    elif size < 0x10000:
        head[1] = 126
        head[2] = <uint8_t>(size >> 8)
        head[3] = <uint8_t>size
        at = 4
    else:
        head[1] = 127
        for i in range(8):
            head[2 + i] = <uint8_t>(<uint64_t>size >> (56 - 8 * i))
        at = 10
    ws.frame_head_at = 0
    ws.frame_head_size = at
    ws.frame_left = size


cdef int ws_gather(websocket_t* ws, outbuf_t* out, iov_t* iov, bint is_last, int close_reason) except -1:
    cdef int n = 0
    cdef int count, _
    cdef size_t left
    if ws.frame_left == 0 and ws.frame_head_at == ws.frame_head_size:
        if ws.between == NULL and ws.pong != NULL:
            ws.between = ws.pong
            ws.between_at = 0
            ws.between_size = ws.pong_size
            ws.pong = NULL
        if out.pending and not ws.has_closed:
            begin_frame(ws, out.pending)
        elif is_last and ws.between == NULL and not ws.has_closed:
            if ws.close == NULL:
                set_close(ws, CLOSE_NORMAL if close_reason < 0 else
                          CLOSE_GOING_AWAY if close_reason == RC_SERVER_SHUTTING_DOWN else CLOSE_POLICY_VIOLATION, b"")
            ws.between = ws.close
            ws.between_at = 0
            ws.between_size = ws.close_size
            ws.close = NULL
            ws.has_closed = True
    if ws.between != NULL:
        iov[n].base = ws.between + ws.between_at
        iov[n].size = ws.between_size - ws.between_at
        n += 1
    if ws.frame_head_at < ws.frame_head_size:
        iov[n].base = ws.frame_head + ws.frame_head_at
        iov[n].size = ws.frame_head_size - ws.frame_head_at
        n += 1
    left = ws.frame_left
    if left:
        count = out_gather(out, iov + n, MAX_IOV)
        for _ in range(count):        # output that came after the head was made waits for the next frame
            if left <= iov[n].size:
                iov[n].size = left
                n += 1
                break
            left -= iov[n].size
            n += 1
    return n


cdef void ws_consume(websocket_t* ws, outbuf_t* out, size_t n) noexcept:
    cdef size_t part
    if ws.between != NULL:
        part = min(n, <size_t>(ws.between_size - ws.between_at))
        ws.between_at += <uint32_t>part
        n -= part
        if ws.between_at == ws.between_size:
            free(ws.between)
            ws.between = NULL
    part = min(n, <size_t>(ws.frame_head_size - ws.frame_head_at))
    ws.frame_head_at += <uint8_t>part
    n -= part
    if n:
        ws.frame_left -= <uint32_t>n
        out_consume(out, n)


cdef bytes ws_take(websocket_t* ws, outbuf_t* out, bint is_last, int close_reason):
    cdef iov_t iov[WS_IOV]
    cdef list parts = []
    cdef bytes part
    cdef uint8_t* p
    cdef size_t total
    cdef int count, i
    while True:
        count = ws_gather(ws, out, iov, is_last, close_reason)
        if count == 0:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        total = 0
        for i in range(count):
            total += iov[i].size
        part = PyBytes_FromStringAndSize(NULL, total)
        p = <uint8_t*>PyBytes_AS_STRING(part)
        for i in range(count):
            memcpy(p, iov[i].base, iov[i].size)
            p += iov[i].size
        ws_consume(ws, out, total)
        parts.append(part)
