"""Chunks of framed records: looking through them without decoding; framing.pxd draws the frame."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from mqttcore.errors import StoreError


cdef object torn(Py_ssize_t at):
    return StoreError("corrupt", f"no record at byte {at} of a chunk")


def index(chunk: object) -> list:
    """Return (key, kind, start, end) of every record; chunk[start:end] is the framed record.

    chunk: bytes-like. Raises StoreError (corrupt) where the frames do not fit together.
    """
    cdef const uint8_t[::1] data = chunk
    cdef Py_ssize_t at = 0, used, size = data.shape[0]
    cdef list found = []
    while at < size:
        used = frame_size(&data[0], at, size)
        if used == 0:
            raise torn(at)
        found.append((load_u64(&data[at + 4]), data[at + 12], at, at + used))
        at += used
    return found


def check(chunk: object) -> int:
    """Return the number of records. Raises StoreError (corrupt): frames that do not fit, keys that do not ascend."""
    cdef const uint8_t[::1] data = chunk
    cdef Py_ssize_t at = 0, used, count = 0, size = data.shape[0]
    cdef uint64_t key, last = 0
    while at < size:
        used = frame_size(&data[0], at, size)
        if used == 0:
            raise torn(at)
        key = load_u64(&data[at + 4])
        if key <= last:
            raise StoreError("corrupt", f"key {key} behind {last} at byte {at} of a chunk")
        last = key
        count += 1
        at += used
    return count


def keys(chunk: object) -> bytes:
    """Return the keys of all records as native uint64, in their order. Raises StoreError (corrupt) as `index` does."""
    cdef const uint8_t[::1] data = chunk
    cdef Py_ssize_t size = data.shape[0], at = 0, used, count = 0
    while at < size:
        used = frame_size(&data[0], at, size)
        if used == 0:
            raise torn(at)
        count += 1
        at += used
    cdef bytes found = PyBytes_FromStringAndSize(NULL, count * 8)
    cdef char* to = PyBytes_AS_STRING(found)
    cdef uint64_t key
    at = 0
    while at < size:
        key = load_u64(&data[at + 4])
        memcpy(to, &key, 8)
        to += 8
        at += frame_size(&data[0], at, size)
    return found


def select(chunk: object, keys: object) -> bytes:
    """Return the chunk's records with these keys, in order; keys that it does not have are passed over.

    keys: buffer of native uint64, ascending. Costs a walk over the chunk's headers and one copy. Raises StoreError
    (corrupt) where the frames do not fit together.
    """
    return sift(chunk, keys, True)


def without(chunk: object, keys: object) -> bytes:
    """Return the chunk's records but those with these keys, in order. Arguments, cost, errors: as `select`."""
    return sift(chunk, keys, False)


cdef bytes sift(object chunk, object keys, bint keeps):
    cdef const uint8_t[::1] data = chunk
    cdef const uint64_t[::1] wanted = memoryview(keys).cast("B").cast("Q")
    cdef Py_ssize_t size = data.shape[0], count = wanted.shape[0]
    cdef bytes taken = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(taken)
    cdef Py_ssize_t at = 0, used, n = 0, filled = 0
    cdef uint64_t key
    while at < size:
        used = frame_size(&data[0], at, size)
        if used == 0:
            raise torn(at)
        key = load_u64(&data[at + 4])
        while n < count and wanted[n] < key:
            n += 1
        if (n < count and wanted[n] == key) == keeps:
            memcpy(to + filled, &data[at], used)
            filled += used
        at += used
        if keeps and n == count:
            break
    return taken[:filled]
