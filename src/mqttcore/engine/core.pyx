"""The part of the engine that sessions and connections know; core.pxd describes it."""

from libc.stdlib cimport free, realloc


cdef class Core:
    """Base of Engine: state that everything below shares, and services that Engine implements."""

    cdef Py_ssize_t publish(self, pub_t* pub, route_t* route) except -1:
        raise NotImplementedError

    cdef bint handle(self, object client, pub_t* pub, route_t* route, uint32_t first, uint32_t last,
                     uint8_t* reason_code) except -1:
        raise NotImplementedError

    cdef int64_t wall_ms(self) noexcept:
        return self.now_ms + self.birth.wall_offset_ms

    cdef object view_of(self, object client):
        raise NotImplementedError

    cdef int admit(self, object connection, object packet) except -1:
        raise NotImplementedError

    cdef int continue_authentication(self, object connection, object packet) except -1:
        raise NotImplementedError

    cdef int open_session(self, object connection, object packet) except -1:
        raise NotImplementedError

    cdef int connection_ended(self, object connection, object session, bint publish_will) except -1:
        raise NotImplementedError

    cdef int authorize_publish(self, object connection, pub_t* pub) except -1:
        raise NotImplementedError

    cdef int transform_publish(self, object connection, pub_t* pub) except -1:
        raise NotImplementedError

    cdef bint authorize_deliver(self, object session, pub_t* pub, bint is_shared=False) except -1:
        raise NotImplementedError

    cdef int tell_refused(self, object connection, uint8_t action, str topic) except -1:
        raise NotImplementedError

    cdef int begin_subscribe(self, object connection, object packet) except -1:
        raise NotImplementedError

    cdef str new_connection_id(self):
        self.ids_given += 1
        return f"{self.id_prefix}{self.ids_given:016x}"

    cdef int client_gone(self, object connection) except -1:
        raise NotImplementedError

    cdef int end_session(self, object session) except -1:
        raise NotImplementedError

    cdef bint redistribute(self, msg_t* m, object group, object leaving) except -1:
        raise NotImplementedError

    cdef int publish_message(self, msg_t* m, void* origin) except -1:
        raise NotImplementedError

    cdef int subscribe(self, object session, bytes topic_filter, uint8_t options, uint32_t subid) except -1:
        raise NotImplementedError

    cdef int unsubscribe(self, object session, bytes topic_filter) except -1:
        raise NotImplementedError

    cdef int pause_publisher(self, object connection) except -1:
        raise NotImplementedError

    cdef uint8_t refusal(self, pub_t* pub, route_t* route) noexcept:
        return 0

    cdef bint drop_oldest(self) except -1:
        raise NotImplementedError

    cdef int queue_began(self, object session) except -1:
        raise NotImplementedError

    cdef int bury_queue(self, void* queue) except -1:
        raise NotImplementedError

    cdef uint8_t* scratch(self, Py_ssize_t size) except NULL:
        cdef uint8_t* grown
        if size > self.scratch_size:
            grown = <uint8_t*>realloc(self.scratch_data, size)
            if grown == NULL:
                raise MemoryError
            self.scratch_data = grown
            self.scratch_size = size
        return self.scratch_data

    def __dealloc__(self):
        free(self.scratch_data)
