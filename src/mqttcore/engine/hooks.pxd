# What plugins hang into the packet path: callables looked up once, and a mask so that nothing costs nothing.

from libc.stdint cimport uint32_t


cdef enum hook_bit:
    HOOK_AUTHENTICATE = 1
    HOOK_CONTINUE_AUTHENTICATION = 2


cdef class HookTable:
    cdef readonly uint32_t mask
    cdef readonly object authenticate
    cdef readonly object continue_authentication
