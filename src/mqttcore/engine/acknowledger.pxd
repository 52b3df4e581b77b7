# Acknowledgements of a connection: those that come, and those it owes, at once or when the store is as far (journal.pxd).

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from mqttcore.engine.inlet cimport Inlet


cdef class Acknowledger(Inlet):
    cdef int on_ack(self, uint8_t packet_type, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef int acknowledge(self, uint8_t first, uint16_t packet_id, uint8_t reason_code, uint64_t mark) except -1
    cdef int answer(self, bytes packet, uint64_t mark) except -1
    cdef int pause_for_store(self) except -1
    # The engine's, when a batch is safe, and when the store failed.
    cdef int release(self) except -1
    cdef int refuse_held(self, uint8_t reason_code) except -1
