# The engine's side of its store: hands batches over, hears what became of them, pages messages in.

from mqttcore.engine.engine cimport Engine
from mqttcore.engine.journal cimport Journal


cdef class Keeper:
    cdef readonly Engine engine
    cdef readonly Journal journal
    cdef int let_go(self) except -1
