# WebSocket framing (RFC 6455), the server's side, without a socket: masked frames in, payload to the engine as it comes,
# one binary frame in front of what is written at a time.
#
#   in    [ head 2…14 bytes | payload ] …   unmasked where it lies and fed on: no frame is ever buffered
#   out   [ between | head | payload of one frame ]   between: the answer to the upgrade, Pong, Close
#
# A connection that is idle owns no memory besides this struct.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.connection cimport Connection
from mqttcore.engine.outbuf cimport MAX_IOV, iov_t, outbuf_t


cdef enum:
    WS_OPEN                   # frames are taken
    WS_FAILED                 # the peer broke the framing: what else it sends is thrown away
    WS_CLOSED_BY_PEER         # its Close has come: nothing follows
    WS_IOV = MAX_IOV + 2      # entries that ws_gather fills at most


cdef struct websocket_t:
    # in
    uint64_t payload_left     # bytes of the current frame's payload that are to come
    uint64_t message_size     # bytes that the frames of the current message declared
    uint64_t message_maximum  # bytes; 1009 beyond
    int64_t second            # of the engine's clock: the one in which pings are counted
    uint32_t pings            # control frames in that second
    uint32_t pings_maximum
    uint8_t* control          # owned: payload of a control frame under way, or NULL
    uint8_t head[14]
    uint8_t head_size         # bytes of the head that have come; the mask ends it
    uint8_t mask[4]           # turned so that mask[0] belongs to the next byte
    uint8_t control_size
    uint8_t state             # WS_…
    bint is_in_payload
    bint is_in_message        # a data frame without FIN came last
    # out
    uint8_t* between          # owned: bytes that go before the next frame, or NULL
    uint8_t* pong             # owned: the Pong frame that is due, or NULL; a newer one takes its place
    uint8_t* close            # owned: the Close frame that is due at the very end, or NULL: a plain one
    uint32_t between_at
    uint32_t between_size
    uint32_t frame_left       # bytes of the frame under way that are still to be written
    uint8_t frame_head[10]
    uint8_t frame_head_at
    uint8_t frame_head_size
    uint8_t pong_size
    uint8_t close_size
    bint has_closed           # Close is in between, or written


# upgraded: bytes of the answer to the upgrade, written before all else.
cdef int ws_init(websocket_t* ws, bytes upgraded, uint64_t message_maximum, uint32_t pings_maximum) except -1
cdef void ws_free(websocket_t* ws) noexcept
# Takes what came from the network and feeds payloads to the engine. *data* is unmasked in place. Faults of the peer end
# the connection and do not raise.
cdef int ws_receive(websocket_t* ws, Connection connection, uint8_t* data, Py_ssize_t size) except -1
# Fills *iov*, of WS_IOV entries, with what is to be written next; returns their number, 0: nothing. is_last: the engine
# is done, so Close follows what is pending; close_reason: why.
cdef int ws_gather(websocket_t* ws, outbuf_t* out, iov_t* iov, bint is_last, int close_reason) except -1
# Takes *n* written bytes off.
cdef void ws_consume(websocket_t* ws, outbuf_t* out, size_t n) noexcept
# All that is to be written, as one bytes object; empty: nothing.
cdef bytes ws_take(websocket_t* ws, outbuf_t* out, bint is_last, int close_reason)
