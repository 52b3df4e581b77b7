# How Topic Filters lie to topics and to each other (MQTT 5 §4.7). Both come in checked, filters without `$share`.
#
# A leading wildcard does not reach topics that begin with `$` [MQTT-4.7.2-1], here as in the trie.

from libc.stdint cimport uint8_t


# Whether a filter matches a topic.
cdef bint filter_matches(const uint8_t* topic_filter, Py_ssize_t filter_size,
                         const uint8_t* topic, Py_ssize_t topic_size) noexcept nogil
# Whether *wide* matches every topic that *narrow* matches. Sound, and complete but for `+/#`, which is not seen to cover
# `#`.
cdef bint filter_covers(const uint8_t* wide, Py_ssize_t wide_size,
                        const uint8_t* narrow, Py_ssize_t narrow_size) noexcept nogil
# Whether some topic is matched by both.
cdef bint filters_meet(const uint8_t* one, Py_ssize_t one_size,
                       const uint8_t* other, Py_ssize_t other_size) noexcept nogil
# Bytes of `$share/name/` in front of the filter; 0: it is not shared.
cdef Py_ssize_t share_prefix_size(const uint8_t* topic_filter, Py_ssize_t size) noexcept nogil
