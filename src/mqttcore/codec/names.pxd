# Rules for Topic Names and Topic Filters (MQTT 5 §4.7, §4.8.2). All return a status.

from libc.stdint cimport uint8_t

# MQTT UTF-8 string: well formed, no surrogates, no U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
cdef int check_utf8(const uint8_t* text, Py_ssize_t size) noexcept nogil

# A Topic Name: not empty, valid UTF-8 without U+0000, no wildcard [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2].
cdef int check_topic_name(const uint8_t* topic, Py_ssize_t size) noexcept nogil

# A Topic Filter with or without $share: wildcards alone on their level, `#` last [MQTT-4.7.1-1..2] [MQTT-4.8.2-1..2].
cdef int check_topic_filter(const uint8_t* topic_filter, Py_ssize_t size) noexcept nogil

# Whether a filter starts with `$share/`.
cdef bint is_shared_filter(const uint8_t* topic_filter, Py_ssize_t size) noexcept nogil
