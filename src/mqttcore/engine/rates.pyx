"""Token buckets for what a client sends; rates.pxd describes them."""

from libc.math cimport ceil
from libc.stdlib cimport calloc

cdef enum:
    RESPITE_MS = 1000         # a client that went on for so long without a pause does not press any more
    LONGEST_MS = 3_600_000    # of a pause


cdef void bucket_set(bucket_t* bucket, double per_s) noexcept:
    bucket.per_ms = per_s / 1000
    bucket.capacity = bucket.tokens = max(per_s, 1.0)


cdef inline void bucket_fill(bucket_t* bucket, int64_t elapsed_ms) noexcept:
    bucket.tokens = min(bucket.capacity, bucket.tokens + bucket.per_ms * <double>elapsed_ms)


cdef inline int64_t bucket_take(bucket_t* bucket, double amount) noexcept:
    if bucket.per_ms == 0:
        return 0
    bucket.tokens -= amount
    if bucket.tokens >= 0:
        return 0
    return <int64_t>min(ceil(-bucket.tokens / bucket.per_ms), <double>LONGEST_MS)


cdef rates_t* rates_new(double messages_per_s, double bytes_per_s, int64_t now_ms) except NULL:
    cdef rates_t* rates = <rates_t*>calloc(1, sizeof(rates_t))
    if rates == NULL:
        raise MemoryError
    rates_set(rates, messages_per_s, bytes_per_s, now_ms)
    return rates


cdef void rates_set(rates_t* rates, double messages_per_s, double bytes_per_s, int64_t now_ms) noexcept:
    bucket_set(&rates.messages, messages_per_s)
    bucket_set(&rates.bytes, bytes_per_s)
    rates.filled_ms = now_ms
    rates.over_since_ms = rates.paused_until_ms = 0


cdef int64_t rates_take(rates_t* rates, Py_ssize_t size, int64_t now_ms) noexcept:
    cdef int64_t for_messages, for_bytes
    if now_ms > rates.filled_ms:
        bucket_fill(&rates.messages, now_ms - rates.filled_ms)
        bucket_fill(&rates.bytes, now_ms - rates.filled_ms)
        rates.filled_ms = now_ms
    for_messages = bucket_take(&rates.messages, 1)
    for_bytes = bucket_take(&rates.bytes, <double>size)
    return max(for_messages, for_bytes)


cdef int64_t rates_pressed(rates_t* rates, int64_t wait_ms, int64_t now_ms) noexcept:
    if rates.over_since_ms == 0 or now_ms - rates.paused_until_ms > RESPITE_MS:
        rates.over_since_ms = now_ms
    rates.paused_until_ms = now_ms + wait_ms
    return now_ms - rates.over_since_ms
