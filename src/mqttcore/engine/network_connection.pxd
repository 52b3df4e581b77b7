# The network connection under a client: its states, its clock, what it writes, and each way it ends.
#
#   NEW --CONNECT--> ADMITTING --accepted--> CONNECTED --DISCONNECT, error, lost--> CLOSED
#                        \--refused--> CLOSED

from libc.stdint cimport int16_t, int64_t, uint8_t, uint32_t

from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.session cimport Session
from mqttcore.engine.timers cimport timer_t


cdef enum:
    PACKET_MAXIMUM = 268435460        # bytes: no Remaining Length says more (MQTT 5 §2.1.4)


cdef enum:
    STATE_NEW = 0
    STATE_ADMITTING = 1
    STATE_CONNECTED = 2
    STATE_CLOSED = 3


# A reason code that a packet of this type may refuse with, for one that somebody chose.
cdef int refusal_code(uint8_t packet_type, object reason_code) except -1


cdef class NetworkConnection(Outlet):
    cdef Session session              # None until CONNECT was accepted, and after the end
    cdef readonly object listener     # what the driver gave: has name and allow_anonymous
    cdef object given_peer            # address of the client, as the driver gave it; None: unknown
    cdef readonly str client_id       # None until a CONNECT was decoded
    # The CONNECT while it is being admitted; once accepted, the authorizer's Subscribing while a SUBSCRIBE is being decided.
    cdef object connect
    cdef object client                # ClientView, once a hook or handler wanted it; None so far
    cdef timer_t timer                # connect time-out, then keep-alive
    cdef int64_t last_received_ms
    cdef readonly int64_t opened_ms
    cdef readonly uint32_t keep_alive_s           # in force; 0: none
    cdef uint32_t packet_maximum      # bytes of a packet on this connection, where the listener takes less than the limits
    cdef readonly int16_t close_reason            # reason code with which we closed, -1: the peer did or it was lost
    cdef readonly uint8_t state
    cdef uint8_t wants_problem_information        # Request Problem Information of the CONNECT
    cdef uint8_t was_reset            # drivers say so before lost(): by an error, not by the peer's orderly close
    cdef uint8_t is_counted           # the listener's admission counts it for its address
    cdef readonly bint is_paused      # the driver shall not read
    cdef readonly str certified_name  # a client certificate is authentication enough: its user name; empty: it names nobody

    # Address of the client: (host, port), a path, or None; drivers may override.
    cdef object address(self)
    # The network knows where the client is: who watches that address hears of the connection. It may come twice, when a
    # PROXY header says better.
    cdef int address_known(self) except -1
    # It is given up for what is below MQTT: who watches hears why.
    cdef int failed_below(self, str reason) except -1
    # Drivers override: what they wait for before the CONNECT, in words; None: nothing.
    cdef str awaited(self)
    # Ends the connection when it has not got beyond CONNECT in so many ms from now.
    cdef int set_deadline(self, int64_t ms) except -1
    # Drivers override: the keep alive is known, and may be told to the network.
    cdef int keep_alive_changed(self) except -1
    cdef void look_at_clock(self, int64_t now_ms) noexcept
    # Drivers override: writes what is pending; True when nothing is left and the network takes more.
    cdef bint write_out(self) except -1
    # Drivers override: the engine is done and everything is written; ends the network connection.
    cdef int finish(self) except -1
    # Writes what is pending and goes on with the session's queue while the network takes it.
    cdef int drain(self) except -1
    # The peer broke the standard. status: of a decoder; error: a ProtocolError.
    cdef int fail(self, int status) except -1
    cdef int fail_with(self, object error) except -1
    # Closes from our side: DISCONNECT to MQTT 5 clients when send, the will when publish_will.
    cdef int close_with(self, uint8_t reason_code, bint publish_will, str reason=*, bint send=*) except -1
    # CONNACK with an error; the reason only when the client takes packets of that size.
    cdef int send_refusal(self, uint8_t reason_code, str reason) except -1
    # The network connection is gone.
    cdef int lost(self) except -1
    # reason: our words for it when it was not us who closed; detail: more of them.
    cdef int end(self, bint publish_will, str reason=*, str detail=*) except -1
    # The parts above give back what they hold of what the client sent: nothing comes any more.
    cdef void drop_input(self) noexcept
