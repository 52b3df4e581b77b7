# One network connection as the engine sees it: bytes in, bytes out, no socket.
#
#   NEW --CONNECT--> ADMITTING --accepted--> CONNECTED --DISCONNECT, error, lost--> CLOSED
#                        \--refused--> CLOSED
#
# While ADMITTING (or paused) nothing is parsed: what arrives is kept in rest, and the driver stops reading.

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t

from mqttcore.codec.views cimport publish_view
from mqttcore.engine.outlet cimport Outlet, alias_t
from mqttcore.engine.session cimport Session
from mqttcore.engine.timers cimport timer_t


cdef enum:
    PACKET_MAXIMUM = 268435460        # bytes: no Remaining Length says more (MQTT 5 §2.1.4)


cdef enum:
    STATE_NEW = 0
    STATE_ADMITTING = 1
    STATE_CONNECTED = 2
    STATE_CLOSED = 3


cdef class Connection(Outlet):
    cdef Session session              # None until CONNECT was accepted, and after the end
    cdef readonly object listener     # what the driver gave: has name and allow_anonymous
    cdef object given_peer            # address of the client, as the driver gave it; None: unknown
    cdef readonly str client_id       # None until a CONNECT was decoded
    cdef object connect               # the CONNECT while it is being admitted
    cdef object client                # ClientView, once a hook or handler wanted it; None so far
    cdef readonly str authentication_method       # of the CONNECT, or None
    cdef uint8_t* rest                # start of a packet whose end has not come yet
    cdef uint32_t rest_size
    cdef uint32_t rest_cap
    cdef alias_t* received_aliases    # alias n stands at n - 1; NULL until the first use
    cdef timer_t timer                # connect time-out, then keep-alive
    cdef int64_t last_received_ms
    cdef readonly int64_t opened_ms
    cdef readonly uint32_t keep_alive_s           # in force; 0: none
    cdef uint16_t received_alias_count            # places in received_aliases
    cdef readonly uint8_t state
    cdef uint8_t clean_start          # of the CONNECT
    cdef uint8_t is_reauthenticating
    cdef uint8_t wants_problem_information        # Request Problem Information of the CONNECT
    cdef readonly int16_t close_reason            # reason code with which we closed, -1: the peer did or it was lost
    cdef readonly bint is_paused      # the driver shall not read
    cdef readonly str certified_name  # a client certificate is authentication enough: its user name; empty: it names nobody
    cdef uint32_t packet_maximum      # bytes of a packet on this connection, where the listener takes less than the limits
    cdef bint is_counted              # the listener's admission counts it for its address

    # Takes what the network gave; parses in place. Peer faults close the connection and do not raise.
    cdef int feed(self, const uint8_t* data, Py_ssize_t size) except -1
    # The network connection is gone.
    cdef int lost(self) except -1
    # Closes from our side: DISCONNECT to MQTT 5 clients when send, the will when publish_will.
    cdef int close_with(self, uint8_t reason_code, bint publish_will, str reason=*, bint send=*) except -1
    cdef int connected(self, Session session, uint16_t keep_alive_s) except -1
    cdef int set_paused(self, bint paused) except -1
    # Ends the connection when it has not got beyond CONNECT in so many ms from now.
    cdef int set_deadline(self, int64_t ms) except -1
    # Drivers override: the keep alive is known, and may be told to the network.
    cdef int keep_alive_changed(self) except -1
    # Drivers override: start or stop reading from the network.
    cdef int paused_changed(self) except -1
    # Drivers override: writes what is pending; True when nothing is left and the network takes more.
    cdef bint write_out(self) except -1
    # Drivers override: the engine is done and everything is written; ends the network connection.
    cdef int finish(self) except -1
    # Writes what is pending and goes on with the session's queue while the network takes it.
    cdef int drain(self) except -1
    # Address of the client: (host, port), a path, or None; drivers may override.
    cdef object address(self)
    # What is known of the TLS connection, or None; drivers may override.
    cdef object tls(self)
    cdef int fail(self, int status) except -1
    cdef int fail_with(self, object error) except -1
    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int complete_rest(self, const uint8_t** data, Py_ssize_t* size) except -1
    cdef int keep_rest(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int dispatch(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_first(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_publish(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int refuse_publish(self, publish_view* view, uint8_t reason_code) except -1
    cdef int resolve_alias(self, publish_view* view) except -1
    cdef int on_ack(self, uint8_t packet_type, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_rare(self, uint8_t packet_type, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_subscribe(self, object packet) except -1
    cdef bint answer_fits(self, Py_ssize_t count) except -1
    cdef int on_unsubscribe(self, object packet) except -1
    cdef int on_disconnect(self, object packet) except -1
    cdef int end(self, bint publish_will) except -1
    cdef int drop_rest(self, Py_ssize_t used) except -1
    cdef int refuse_connect(self, object error) except -1
    # CONNACK with an error; the reason only when the client takes packets of that size.
    cdef int send_refusal(self, uint8_t reason_code, str reason) except -1
    cdef void look_at_clock(self, int64_t now_ms) noexcept
    cdef void free_aliases(self) noexcept
