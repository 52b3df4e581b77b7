# Messages made of Python values: the broker's own, wills, and what a plugin changed.

from libc.stdint cimport int64_t, uint8_t

from mqttcore.engine.message cimport birth_t, msg_t


# A new message; the one reference belongs to the caller. properties: PropertyId -> value, or None. birth NULL: it is
# published later, from a copy. expires_ms is not set: the expiry is expiry_at's, from when the message is published.
cdef msg_t* make_message(bytes topic, bytes payload, uint8_t qos, bint retain, dict properties,
                         birth_t* birth) except NULL
# As *m*, but for what a handlers.PublishChange makes different; it keeps its id and publisher, and the
# one reference belongs to the caller. now_ms: from when
# an expiry among new properties counts. TypeError, ValueError for values that cannot be.
cdef msg_t* change_message(msg_t* m, object change, int64_t now_ms) except NULL
