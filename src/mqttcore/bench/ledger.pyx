"""Account of which messages arrived: lost, duplicated and reordered ones are counted exactly."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free


cdef class Ledger:
    """Flows numbered from 0, each one the messages 0, 1, 2 … of one publisher as one subscriber saw them.

    Costs one bit per message and flow.
    """

    def __cinit__(self, Py_ssize_t flow_count):
        if flow_count < 0:
            raise ValueError("flow_count is negative")
        self.flows = <flow_t*>calloc(flow_count if flow_count else 1, sizeof(flow_t))
        if self.flows == NULL:
            raise MemoryError
        self.flow_count = flow_count

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.flows != NULL:
            for i in range(self.flow_count):
                free(self.flows[i].seen)
            free(self.flows)

    cdef flow_t* at(self, Py_ssize_t flow) except NULL:
        if not 0 <= flow < self.flow_count:
            raise IndexError("no such flow")
        return &self.flows[flow]

    def note(self, Py_ssize_t flow, uint64_t number):
        """Take down that message *number* arrived in *flow*; return whether it is the first time."""
        cdef int is_new = flow_note(self.at(flow), number)
        if is_new < 0:
            raise MemoryError
        return is_new == 1

    def forget(self):
        """Start every flow anew, keeping the counts of duplicates and reorderings so far."""
        cdef Py_ssize_t i
        for i in range(self.flow_count):
            free(self.flows[i].seen)
            self.flows[i].seen = NULL
            self.flows[i].capacity = self.flows[i].next = self.flows[i].received = 0

    @property
    def received(self):
        """Different messages that arrived, over all flows."""
        cdef uint64_t total = 0
        for i in range(self.flow_count):
            total += self.flows[i].received
        return total

    @property
    def duplicated(self):
        """Arrivals of messages that had arrived before in the same flow."""
        cdef uint64_t total = 0
        for i in range(self.flow_count):
            total += self.flows[i].duplicated
        return total

    @property
    def reordered(self):
        """First arrivals that came after a later message of the same flow [MQTT-4.6.0-6]."""
        cdef uint64_t total = 0
        for i in range(self.flow_count):
            total += self.flows[i].reordered
        return total
