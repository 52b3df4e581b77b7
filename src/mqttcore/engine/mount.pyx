"""Mount points at the wire; mount.pxd says what they are."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy

from mqttcore.codec.codes cimport RC_NOT_AUTHORIZED, RC_TOPIC_FILTER_INVALID, RC_TOPIC_NAME_INVALID, RC_UNSPECIFIED_ERROR
from mqttcore.codec.names cimport check_topic_filter
from mqttcore.engine.filters cimport share_prefix_size

import logging

from mqttcore.codec import Subscribe, Subscription
from mqttcore.errors import ProtocolError
from mqttcore.mount_point import mount_point_of

log = logging.getLogger("mqttcore.engine")


cdef bytes mounted(bytes mount, const uint8_t* topic, Py_ssize_t size):
    cdef Py_ssize_t prefix = PyBytes_GET_SIZE(mount)
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, prefix + size)
    cdef char* to = PyBytes_AS_STRING(whole)
    memcpy(to, PyBytes_AS_STRING(mount), prefix)
    memcpy(to + prefix, topic, size)
    return whole


cdef bytes mounted_filter(bytes mount, bytes topic_filter):
    cdef const uint8_t* text = <const uint8_t*>PyBytes_AS_STRING(topic_filter)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(topic_filter)
    cdef Py_ssize_t prefix
    if check_topic_filter(text, size):
        return topic_filter
    prefix = share_prefix_size(text, size)
    return topic_filter[:prefix] + mount + topic_filter[prefix:]


cdef object mounted_subscribe(bytes mount, object packet):
    return Subscribe(packet.packet_id, [
        Subscription(
            mounted_filter(mount, one.topic_filter.encode()).decode(), one.qos, no_local=one.no_local,
            retain_as_published=one.retain_as_published, retain_handling=one.retain_handling,
        )
        for one in packet.subscriptions
    ], packet.properties)


cdef bytes whole_topic(bytes mount, str topic):
    cdef bytes said = topic.encode()
    return said if mount is None else mount + said


cdef uint8_t refusal_of_topic(bytes mount, const uint8_t* topic, Py_ssize_t size, Py_ssize_t said_maximum) noexcept:
    cdef Py_ssize_t prefix = PyBytes_GET_SIZE(mount)
    if topic[prefix] == c"$":
        return RC_NOT_AUTHORIZED
    return RC_TOPIC_NAME_INVALID if size > TOPIC_BYTES_MAXIMUM or size - prefix > said_maximum else 0


cdef uint8_t refusal_of_filter(bytes mount, const uint8_t* topic_filter, Py_ssize_t size, Py_ssize_t said_maximum) noexcept:
    cdef Py_ssize_t share
    if mount is None:
        return RC_TOPIC_FILTER_INVALID if size > said_maximum else 0
    share = share_prefix_size(topic_filter, size)
    if not is_within(mount, topic_filter + share, size - share):
        return RC_NOT_AUTHORIZED
    if size > TOPIC_BYTES_MAXIMUM or size - PyBytes_GET_SIZE(mount) > said_maximum:
        return RC_TOPIC_FILTER_INVALID
    return 0


cdef bytes find_mount(object identity, object listener, str client_id, str user_name):
    cdef object text = None if identity is None else identity.mount_point
    if text is None:
        text = getattr(listener, "mount_point", "")
    if text == "":
        return None
    try:
        return mount_point_of(text, client_id, user_name)
    except ProtocolError:
        raise
    except Exception as error:
        log.exception("client %s: %r is no mount point", client_id, text)
        raise ProtocolError(RC_UNSPECIFIED_ERROR, "§4.13", "mount point") from error


cdef int check_mount(bytes mount, object identity, str client_id, str user_name) except -1:
    if identity.mount_point is not None and find_mount(identity, None, client_id, user_name) != mount:
        raise ProtocolError(RC_NOT_AUTHORIZED, "§4.12.1", "another mount point than the session's")
    return 0
