"""Loops over the compiled face of the trees, so that a benchmark measures them and not the calls from Python."""

from libc.stdint cimport uint8_t

from mqttcore.engine.topics cimport Subscriber, TopicTree, route_t


def known(TopicTree tree not None, list topics not None) -> int:
    """Ask for the cached route of each topic (bytes); return how many were there."""
    cdef bytes topic
    cdef Py_ssize_t found = 0
    for topic in topics:
        found += tree.known(<const uint8_t*><const char*>topic, len(topic)) != NULL
    return found


def route(TopicTree tree not None, list topics not None) -> int:
    """Ask for the route of each topic (bytes), cached or not; return the targets of all."""
    cdef bytes topic
    cdef Py_ssize_t targets = 0
    cdef route_t* found
    for topic in topics:
        found = tree.route(<const uint8_t*><const char*>topic, len(topic))
        targets += found.count
    return targets


def subscribe(TopicTree tree not None, list filters not None, Subscriber subscriber not None) -> None:
    """Subscribe to each filter (bytes)."""
    cdef bytes topic_filter
    for topic_filter in filters:
        tree.subscribe(<const uint8_t*><const char*>topic_filter, len(topic_filter), subscriber, 0, 0)


def unsubscribe(TopicTree tree not None, list filters not None, Subscriber subscriber not None) -> None:
    """Unsubscribe from each filter (bytes)."""
    cdef bytes topic_filter
    for topic_filter in filters:
        tree.unsubscribe(<const uint8_t*><const char*>topic_filter, len(topic_filter), subscriber)
