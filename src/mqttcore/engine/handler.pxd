# Topic handlers: Python functions on the trie that decide what becomes of a client's message before it is routed.
#
# A route lists the handlers its topic matched, those that authorise by themselves first, then by order. What a handler
# answers for all messages of a topic (Recipients with is_fixed) is remembered with the route.

from libc.stdint cimport int32_t, uint64_t

from mqttcore.engine.message cimport Message
from mqttcore.engine.subscriber cimport Subscriber


cdef class Handler(Subscriber):
    cdef readonly object function               # (ClientView, Message) -> Consumed, Recipients or None
    cdef readonly bint is_authorized_by_itself  # asked before the client's permissions
    cdef readonly int32_t order                 # lower ones are asked first
    cdef readonly str owner                     # the plugin's name, for logs
    cdef object on_failure                      # takes the exception, or None
    cdef readonly uint64_t calls
    cdef readonly uint64_t failures             # calls that raised or answered nonsense

    # Whether it is asked before *other*.
    cdef bint precedes(self, Handler other) noexcept
    # What the function answers: None, a Consumed or a Recipients. One that fails refuses the message.
    cdef object ask(self, object client, Message message)
    # Counts a failure and tells it, or logs it, more and more rarely.
    cdef int failed(self, object error) except -1
