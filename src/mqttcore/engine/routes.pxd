# The cache of routes by topic bytes, bounded by number and bytes; the clock algorithm chooses what goes.
#
# Its table has its final size from the start: pages that nobody touches cost nothing, and it never stalls to rehash.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from mqttcore.engine.subscriber cimport route_t


cdef struct cache_t:
    route_t** buckets
    route_t** ring                  # the cached routes, dense; the hand goes round it
    uint32_t mask                   # of buckets
    uint32_t maximum
    uint32_t count
    uint32_t hand
    Py_ssize_t bytes_held
    Py_ssize_t bytes_maximum
    uint64_t evictions              # for want of room


cdef inline route_t* cache_find(cache_t* cache, uint64_t hash, const uint8_t* topic, Py_ssize_t size) noexcept nogil:
    cdef route_t* route = cache.buckets[hash & cache.mask]
    while route != NULL:
        if route.hash == hash and route.size == size and memcmp(route.topic, topic, size) == 0:
            return route
        route = route.chain
    return NULL


cdef int cache_init(cache_t* cache, Py_ssize_t maximum, Py_ssize_t bytes_maximum) except -1
# Takes the reference of a route whose topic is not cached; evicts for it. False when it is larger than the cache, or the
# cache holds nothing: then the reference stays with the caller.
cdef bint cache_add(cache_t* cache, route_t* route) noexcept
# Counts more bytes for a cached route, or less, and evicts others for them. False when there is no room without it.
cdef bint cache_resize(cache_t* cache, route_t* route, Py_ssize_t more) noexcept
# Takes a route out and gives the reference back.
cdef void cache_drop(cache_t* cache, route_t* route) noexcept
cdef void cache_clear(cache_t* cache) noexcept
cdef void cache_free(cache_t* cache) noexcept
