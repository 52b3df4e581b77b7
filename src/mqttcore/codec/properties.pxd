# MQTT 5 properties (§2.2.2): one table says what each is, where it may stand and which values it may have.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mqttcore.codec.wire cimport cursor_t
from mqttcore.codec.writer cimport writer_t

cdef enum:
    PLACE_WILL = 0                  # will properties; every other place is a packet type, PT_CONNECT to PT_AUTH
    PLACE_ANY = 16                  # no packet in particular: only values are checked


# One property as it was read; pointers go into the block.
cdef struct property_t:
    uint64_t seen                   # bit per identifier read so far; set to 0 before the first read_property()
    const uint8_t* text             # string, binary data, or name of a pair
    const uint8_t* second           # value of a pair
    uint32_t text_size
    uint32_t second_size
    uint32_t number                 # value of an integer
    uint8_t id


# Reads and checks the next property. Returns a status.
cdef int read_property(cursor_t* cursor, int place, property_t* found) noexcept nogil

# Checks a whole block (without its length) in a place. Returns a status.
cdef int check_properties(const uint8_t* block, Py_ssize_t size, int place) noexcept nogil

# Reads length and block at a cursor into a new dict; raises ProtocolError.
cdef dict take_properties(cursor_t* cursor, int place)

# The block of a dict, without its length. ValueError, TypeError: not encodable. Order is that of the dict.
cdef bytes encode_properties_block(dict properties)

# Writes length and block; checks that each property may stand in *place* (ValueError).
cdef int write_properties(writer_t* out, dict properties, int place) except -1
