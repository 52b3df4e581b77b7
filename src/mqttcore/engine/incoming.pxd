# A PUBLISH that comes in: from its bytes to its route, or to its refusal.

from libc.stdint cimport uint8_t, uint16_t

from mqttcore.codec.views cimport publish_view
from mqttcore.engine.acknowledger cimport Acknowledger
from mqttcore.engine.inlet cimport Inlet
from mqttcore.engine.message cimport pub_t
from mqttcore.engine.outlet cimport alias_t
from mqttcore.engine.topics cimport route_t


cdef class Incoming(Acknowledger):
    cdef alias_t* received_aliases    # alias n stands at n - 1; NULL until the first use
    cdef uint16_t received_alias_count            # places in received_aliases

    cdef int on_publish(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    # What stands between a PUBLISH and its route: True: it goes no further, taken or refused with the reason code. False:
    # *route* is that of the message, which may be another one now.
    cdef bint examine(self, pub_t* pub, route_t** route, bint is_for_handlers_only, uint8_t* reason_code) except -1
    # Whether a changed message may be published: a reason code, 0: it may.
    cdef int check_changed(self, pub_t* pub) except -1
    cdef int tell_diverted(self, publish_view* view, uint8_t reason_code) except -1
    cdef int refuse_publish(self, publish_view* view, uint8_t reason_code) except -1
    cdef int refuse_unkept(self, publish_view* view, uint8_t reason_code) except -1
    cdef int resolve_alias(self, publish_view* view) except -1
    cdef void free_aliases(self) noexcept
