# One network connection as the engine sees it: bytes in, bytes out, no socket.
#
#   NEW --CONNECT--> ADMITTING --accepted--> CONNECTED --DISCONNECT, error, lost--> CLOSED
#                        \--refused--> CLOSED
#
# While ADMITTING (or paused) nothing is parsed: what arrives is kept in rest, and the driver stops reading.

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.codec.views cimport publish_view
from mqttcore.engine.message cimport pub_t
from mqttcore.engine.outlet cimport Outlet, alias_t
from mqttcore.engine.rates cimport rates_t
from mqttcore.engine.session cimport Session
from mqttcore.engine.timers cimport timer_t
from mqttcore.engine.topics cimport route_t


cdef enum:
    PACKET_MAXIMUM = 268435460        # bytes: no Remaining Length says more (MQTT 5 §2.1.4)


cdef enum:
    STATE_NEW = 0
    STATE_ADMITTING = 1
    STATE_CONNECTED = 2
    STATE_CLOSED = 3


cdef enum:
    PAUSE_ADMITTING = 1       # authentication is under way elsewhere
    PAUSE_CONGESTED = 2       # a queue it publishes to is full
    PAUSE_RATE = 4            # it sent too much
    PAUSE_SUBSCRIBE = 8       # a plugin decides a SUBSCRIBE
    PAUSE_STORE = 16          # too much of what came is not safe yet


cdef class Connection(Outlet):
    cdef Session session              # None until CONNECT was accepted, and after the end
    cdef readonly object listener     # what the driver gave: has name and allow_anonymous
    cdef object given_peer            # address of the client, as the driver gave it; None: unknown
    cdef readonly str client_id       # None until a CONNECT was decoded
    # The CONNECT while it is being admitted; once accepted, the authorizer's Subscribing while a SUBSCRIBE is being decided.
    cdef object connect
    cdef rates_t* rates               # NULL: it may send as fast as it can
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
    cdef uint8_t pauses               # PAUSE_*: why it is not read
    cdef uint8_t is_reauthenticating
    cdef uint8_t wants_problem_information        # Request Problem Information of the CONNECT
    cdef readonly int16_t close_reason            # reason code with which we closed, -1: the peer did or it was lost
    cdef uint8_t was_reset            # drivers say so before lost(): by an error, not by the peer's orderly close
    cdef readonly bint is_paused      # the driver shall not read
    cdef readonly str certified_name  # a client certificate is authentication enough: its user name; empty: it names nobody
    cdef uint32_t packet_maximum      # bytes of a packet on this connection, where the listener takes less than the limits
    cdef uint8_t is_counted              # the listener's admission counts it for its address

    # Takes what the network gave; parses in place. Peer faults close the connection and do not raise.
    cdef int feed(self, const uint8_t* data, Py_ssize_t size) except -1
    # The network connection is gone.
    cdef int lost(self) except -1
    # Closes from our side: DISCONNECT to MQTT 5 clients when send, the will when publish_will.
    cdef int close_with(self, uint8_t reason_code, bint publish_will, str reason=*, bint send=*) except -1
    cdef int connected(self, Session session, uint16_t keep_alive_s) except -1
    # Not to be read for a reason (PAUSE_*), and for one reason less; without any, what was kept is parsed.
    cdef int pause(self, uint8_t reason) except -1
    cdef int resume(self, uint8_t reason) except -1
    cdef int set_paused(self, bint paused) except -1
    # Ends the connection when it has not got beyond CONNECT in so many ms from now.
    cdef int set_deadline(self, int64_t ms) except -1
    # The network knows where the client is: who watches that address hears of the connection. It may come twice, when a
    # PROXY header says better.
    cdef int address_known(self) except -1
    # It is given up for what is below MQTT: who watches hears why.
    cdef int failed_below(self, str reason) except -1
    # What does not come in time, in words: for drivers that wait for something before the CONNECT.
    cdef str awaited(self)
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
    cdef int fail(self, int status) except -1
    cdef int fail_with(self, object error) except -1
    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int complete_rest(self, const uint8_t** data, Py_ssize_t* size) except -1
    cdef int keep_rest(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int dispatch(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_first(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_publish(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    # Counts one PUBLISH against the rates; True: the connection was closed for it.
    cdef bint is_too_fast(self, Py_ssize_t size) except -1
    # Bounds of this connection: NULL with none.
    cdef int set_rates(self, double messages_per_s, double bytes_per_s) except -1
    # What stands between a PUBLISH and its route: True: it goes no further, taken or refused with the reason code. False:
    # *route* is that of the message, which may be another one now.
    cdef bint examine(self, pub_t* pub, route_t** route, bint is_for_handlers_only, uint8_t* reason_code) except -1
    # Whether a changed message may be published: a reason code, 0: it may.
    cdef int check_changed(self, pub_t* pub) except -1
    cdef int tell_diverted(self, publish_view* view, uint8_t reason_code) except -1
    cdef int refuse_publish(self, publish_view* view, uint8_t reason_code) except -1
    cdef int refuse_unkept(self, publish_view* view, uint8_t reason_code) except -1
    cdef int resolve_alias(self, publish_view* view) except -1
    cdef int on_ack(self, uint8_t packet_type, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int acknowledge(self, uint8_t first, uint16_t packet_id, uint8_t reason_code, uint64_t mark) except -1
    cdef int answer(self, bytes packet, uint64_t mark) except -1
    cdef int pause_for_store(self) except -1
    # The engine's, when a batch is safe, and when the store failed.
    cdef int release(self) except -1
    cdef int refuse_held(self, uint8_t reason_code) except -1
    cdef int on_rare(self, uint8_t packet_type, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_subscribe(self, object packet) except -1
    # Subscribes and answers: codes has the decision on each filter, 0 to 2: at most that QoS.
    cdef int finish_subscribe(self, object packet, list codes) except -1
    cdef bint answer_fits(self, Py_ssize_t count) except -1
    cdef int on_unsubscribe(self, object packet) except -1
    cdef int on_disconnect(self, object packet) except -1
    # reason: our words for it when it was not us who closed; detail: more of them.
    cdef int end(self, bint publish_will, str reason=*, str detail=*) except -1
    cdef int drop_rest(self, Py_ssize_t used) except -1
    cdef int note_refusal(self, uint8_t reason_code, str reason) except -1
    cdef int refuse_connect(self, object error) except -1
    # CONNACK with an error; the reason only when the client takes packets of that size.
    cdef int send_refusal(self, uint8_t reason_code, str reason) except -1
    cdef void look_at_clock(self, int64_t now_ms) noexcept
    cdef void free_aliases(self) noexcept
