# Bodies to packets.

from libc.stdint cimport uint8_t

# Any packet as its Python class; raises ProtocolError. first: the fixed header's first byte. body: whole, behind the
# fixed header. version: that of the connection (ignored by CONNECT). An error in a CONNECT carries `protocol_version` as
# far as it is known.
cdef object decode_body(uint8_t first, const uint8_t* body, Py_ssize_t size, int version)
