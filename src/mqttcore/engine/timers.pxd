# One wheel for all deadlines of an engine: connect time-out, keep-alive, will delay, session expiry.
#
# A timer sits in the slot of its deadline; a deadline more than one turn away stays in its slot until its turn comes.
# Moving a deadline later costs nothing: the owner looks at its own clock when it is called and arms again.

from libc.stdint cimport int64_t, uint32_t

ctypedef void (*fire_t)(void* owner, int64_t now_ms) noexcept

cdef enum:
    WHEEL_SLOTS = 1024
    WHEEL_TICK_MS = 100


cdef struct timer_t:
    timer_t* next             # NULL: not armed
    timer_t* prev
    int64_t deadline_ms
    void* owner               # borrowed: the owner disarms before it dies
    fire_t fire


cdef struct wheel_t:
    timer_t slots[WHEEL_SLOTS]      # list heads
    int64_t now_tick
    uint32_t armed


cdef void wheel_init(wheel_t* wheel, int64_t now_ms) noexcept
# Disarms every timer: none refers to the wheel any more.
cdef void wheel_clear(wheel_t* wheel) noexcept
cdef void timer_arm(wheel_t* wheel, timer_t* timer, int64_t deadline_ms) noexcept
cdef void timer_disarm(wheel_t* wheel, timer_t* timer) noexcept
# Fires everything due until now_ms.
cdef void wheel_turn(wheel_t* wheel, int64_t now_ms) noexcept
