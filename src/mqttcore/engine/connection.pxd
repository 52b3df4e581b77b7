# One network connection as the engine sees it: bytes in, bytes out, no socket.
#
#   Outlet ◀─ NetworkConnection ◀─ Inlet ◀─ Acknowledger ◀─ Incoming ◀─ Connection: one object; each says what it adds.

from libc.stdint cimport uint8_t, uint16_t

from mqttcore.engine.incoming cimport Incoming
from mqttcore.engine.session cimport Session


cdef class Connection(Incoming):
    cdef readonly str authentication_method       # of the CONNECT, or None
    cdef uint8_t clean_start          # of the CONNECT
    cdef uint8_t is_reauthenticating

    cdef int refuse_connect(self, object error) except -1
    cdef int note_refusal(self, uint8_t reason_code, str reason) except -1
    cdef int connected(self, Session session, uint16_t keep_alive_s) except -1
    cdef int on_rare(self, uint8_t packet_type, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int on_subscribe(self, object packet) except -1
    # Subscribes and answers: codes has the decision on each filter, 0 to 2: at most that QoS.
    cdef int finish_subscribe(self, object packet, list codes) except -1
    cdef bint answer_fits(self, Py_ssize_t count) except -1
    cdef int on_unsubscribe(self, object packet) except -1
    cdef int on_disconnect(self, object packet) except -1
