"""The cache of routes by topic bytes; routes.pxd explains it."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memset

from mqttcore.engine.subscriber cimport route_ref, route_unref


cdef enum:
    SECOND_CHANCES = 16             # routes the hand spares for one that it evicts: bounds the work of an addition


cdef int cache_init(cache_t* cache, Py_ssize_t maximum, Py_ssize_t bytes_maximum) except -1:
    cdef Py_ssize_t buckets = 1
    memset(cache, 0, sizeof(cache_t))
    while buckets < maximum:
        buckets *= 2
    cache.buckets = <route_t**>PyMem_Calloc(buckets, sizeof(route_t*))
    cache.ring = <route_t**>PyMem_Calloc(max(maximum, <Py_ssize_t>1), sizeof(route_t*))
    if cache.buckets == NULL or cache.ring == NULL:
        raise MemoryError
    cache.mask = <uint32_t>(buckets - 1)
    cache.maximum = <uint32_t>maximum
    cache.bytes_maximum = bytes_maximum
    return 0


cdef bint cache_add(cache_t* cache, route_t* route) noexcept:
    cdef route_t** bucket
    if cache.maximum == 0 or route.bytes_held > cache.bytes_maximum:
        return False
    while cache.count == cache.maximum or cache.bytes_held + route.bytes_held > cache.bytes_maximum:
        evict(cache)
    bucket = &cache.buckets[route.hash & cache.mask]
    route.chain = bucket[0]
    bucket[0] = route
    route.place = cache.count
    cache.ring[cache.count] = route
    cache.count += 1
    cache.bytes_held += route.bytes_held
    return True


cdef bint cache_resize(cache_t* cache, route_t* route, Py_ssize_t more) noexcept:
    cdef bint is_cached = True
    if route.bytes_held + more > cache.bytes_maximum:
        return False
    route_ref(route)
    while more > 0 and is_cached and cache.bytes_held + more > cache.bytes_maximum:
        evict(cache)
        is_cached = route.refs > 1 and cache_find(cache, route.hash, route.topic, route.size) == route
    if is_cached:
        route.bytes_held += more
        cache.bytes_held += more
    route_unref(route)
    return is_cached


cdef void evict(cache_t* cache) noexcept:
    """Take out the next route that was not asked for since the hand last passed, or the last of those it may spare."""
    cdef int chances = SECOND_CHANCES
    cdef route_t* route
    while True:
        if cache.hand >= cache.count:
            cache.hand = 0
        route = cache.ring[cache.hand]
        if not route.is_recent or chances == 0:
            break
        route.is_recent = False
        chances -= 1
        cache.hand += 1
    cache.evictions += 1
    cache_drop(cache, route)


cdef void cache_drop(cache_t* cache, route_t* route) noexcept:
    cdef route_t** place = &cache.buckets[route.hash & cache.mask]
    cdef route_t* last
    while place[0] != route:
        place = &place[0].chain
    place[0] = route.chain
    cache.count -= 1
    last = cache.ring[cache.count]
    cache.ring[route.place] = last
    last.place = route.place
    cache.ring[cache.count] = NULL
    cache.bytes_held -= route.bytes_held
    route_unref(route)


cdef void cache_clear(cache_t* cache) noexcept:
    while cache.count:
        cache_drop(cache, cache.ring[cache.count - 1])


cdef void cache_free(cache_t* cache) noexcept:
    cache_clear(cache)
    PyMem_Free(cache.buckets)
    PyMem_Free(cache.ring)
    cache.buckets = cache.ring = NULL
