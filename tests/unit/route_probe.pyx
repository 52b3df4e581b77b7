"""A publisher that holds a route while its recipients change the trie."""
from libc.stdint cimport uint8_t, uint32_t

from mqttcore.engine.message cimport pub_t
from mqttcore.engine.topics cimport ShareGroup, Subscriber, TopicTree, route_ref, route_t, route_unref, target_t


cdef class Actor(Subscriber):
    """Calls Python when a message comes."""

    cdef object act

    def __init__(self, act):
        self.is_online = True
        self.act = act

    cdef int deliver(self, pub_t* pub, target_t* target) except -1:
        self.act(self)
        return 0


def publish(TopicTree tree not None, bytes topic not None) -> list:
    """Deliver to each target and to one member of each group; return (subscriber, qos, bytes of identifiers)."""
    cdef route_t* route = route_ref(tree.route(<const uint8_t*><const char*>topic, len(topic)))
    cdef target_t* target
    cdef list done = []
    cdef uint32_t i
    try:
        for i in range(route.count):
            target = &route.targets[i]
            (<Subscriber>target.subscriber).deliver(NULL, target)
            done.append((<object>target.subscriber, target.qos, 0 if target.subids == NULL else target.subids.size))
        for i in range(route.group_count):
            target = (<ShareGroup>route.groups[i]).pick(route.hash)
            if target != NULL:
                done.append((<object>target.subscriber, target.qos, 0))
                (<Subscriber>target.subscriber).deliver(NULL, target)
    finally:
        route_unref(route)
    return done
