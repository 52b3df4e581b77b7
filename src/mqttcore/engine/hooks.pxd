# What plugins hang into the packet path: callables looked up once, and a mask so that nothing costs nothing.

from libc.stdint cimport uint32_t


cdef enum hook_bit:
    HOOK_ADMIT = 1
    HOOK_AUTHENTICATE = 2
    HOOK_CONTINUE_AUTHENTICATION = 4
    HOOK_AUTHORIZE_SUBSCRIBE = 8
    HOOK_AUTHORIZE_PUBLISH = 16
    HOOK_AUTHORIZE_DELIVER = 32
    HOOK_TRANSFORM_PUBLISH = 64


cdef class HookTable:
    cdef readonly uint32_t mask
    cdef readonly object admit
    cdef readonly object authenticate
    cdef readonly object continue_authentication
    cdef readonly object authorize_subscribe
    cdef readonly object authorize_publish
    cdef readonly object authorize_deliver
    cdef readonly object transform_publish
    cdef readonly object on_failure

    # A hook raised, or answered nonsense: the caller refuses. client: its id, for the log.
    cdef int failed(self, str hook, object client, object error) except -1
