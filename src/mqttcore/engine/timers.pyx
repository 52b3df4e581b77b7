"""The timer wheel; timers.pxd describes it."""


cdef void wheel_init(wheel_t* wheel, int64_t now_ms) noexcept:
    cdef int i
    for i in range(WHEEL_SLOTS):
        wheel.slots[i].next = wheel.slots[i].prev = &wheel.slots[i]
    wheel.now_tick = now_ms // WHEEL_TICK_MS
    wheel.armed = 0


cdef void wheel_clear(wheel_t* wheel) noexcept:
    cdef timer_t* head
    cdef int i
    for i in range(WHEEL_SLOTS):
        head = &wheel.slots[i]
        while head.next != NULL and head.next != head:
            timer_disarm(wheel, head.next)


cdef void timer_arm(wheel_t* wheel, timer_t* timer, int64_t deadline_ms) noexcept:
    cdef int64_t tick = (deadline_ms + WHEEL_TICK_MS - 1) // WHEEL_TICK_MS
    cdef timer_t* head
    if timer.next != NULL:
        timer_disarm(wheel, timer)
    if tick <= wheel.now_tick:
        tick = wheel.now_tick + 1
    head = &wheel.slots[tick % WHEEL_SLOTS]
    timer.deadline_ms = tick * WHEEL_TICK_MS
    timer.next = head
    timer.prev = head.prev
    head.prev.next = timer
    head.prev = timer
    wheel.armed += 1


cdef void timer_disarm(wheel_t* wheel, timer_t* timer) noexcept:
    if timer.next == NULL:
        return
    timer.prev.next = timer.next
    timer.next.prev = timer.prev
    timer.next = timer.prev = NULL
    wheel.armed -= 1


cdef void wheel_turn(wheel_t* wheel, int64_t now_ms) noexcept:
    cdef int64_t until = now_ms // WHEEL_TICK_MS
    cdef int64_t tick
    cdef timer_t* head
    cdef timer_t* timer
    cdef timer_t due
    # After a long pause one whole turn reaches every slot.
    tick = wheel.now_tick + 1
    if until - tick >= WHEEL_SLOTS:
        tick = until - WHEEL_SLOTS + 1
    while tick <= until:
        wheel.now_tick = tick
        head = &wheel.slots[tick % WHEEL_SLOTS]
        tick += 1
        if head.next == head:
            continue
        # The slot's list moves to a head of our own, so what the callbacks arm or disarm cannot lead astray.
        due.next = head.next
        due.prev = head.prev
        due.next.prev = &due
        due.prev.next = &due
        head.next = head.prev = head
        while due.next != &due:
            timer = due.next
            due.next = timer.next
            timer.next.prev = &due
            timer.next = timer.prev = NULL
            wheel.armed -= 1
            if timer.deadline_ms > now_ms:
                timer_arm(wheel, timer, timer.deadline_ms)
            else:
                timer.fire(timer.owner, now_ms)
