"""Watches and who they are about; watchers.pxd describes it."""

cimport cython
from libc.stdint cimport int64_t, uint8_t

from mqttcore.engine.message cimport TRACED_TOPIC
from mqttcore.engine.watch cimport WATCH_ADDRESS, WATCH_CLIENT, WATCH_TOPIC

from mqttcore.trace_entries import ConnectionOpened


cdef object text_of(object address):
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address) if address else None


@cython.final
cdef class Traced:
    """A connection that is watched."""


cdef class Watchers:
    """Base of Tracer: the watches of one engine."""

    def __init__(self):
        raise TypeError("Tracer is made by the engine")

    cdef int begin(self, const birth_t* birth) except -1:
        self.birth = birth
        self.watches = []
        self.clients = {}
        self.connections = {}
        return 0

    # --- who is watched ---------------------------------------------------------------------------------------------

    cdef int add(self, Watch watch) except -1:
        self.watches = [*self.watches, watch]
        self.subjects |= watch.subject
        if watch.subject == WATCH_CLIENT:
            self.clients[watch.value] = [*self.clients.get(watch.value, ()), watch]
        return 0

    cdef int remove(self, Watch watch) except -1:
        cdef Watch other
        watch.is_over = True
        self.watches = [other for other in self.watches if other is not watch]
        self.subjects = 0
        for other in self.watches:
            self.subjects |= other.subject
        if watch.subject == WATCH_CLIENT:
            left = [other for other in self.clients.get(watch.value, ()) if other is not watch]
            if left:
                self.clients[watch.value] = left
            else:
                self.clients.pop(watch.value, None)
        return 0

    cdef bint is_free(self, object connection) except -1:
        cdef Watch other
        cdef Traced traced = self.connections.get(connection)
        if traced is None:
            return True
        traced.watches = [other for other in traced.watches if not other.is_over]
        if traced.watches:
            return False
        del self.connections[connection]
        return True

    cdef bint look_at(self, object connection, str client_id) except -1:
        cdef Traced traced = self.connections.get(connection)
        cdef list known = [] if traced is None else traced.watches
        cdef list fresh = []
        cdef Watch watch
        for watch in self.watches:
            if watch in known or watch.is_over:
                continue
            try:
                if (
                    watch.subject == WATCH_CLIENT and client_id is not None and watch.value == client_id
                    or watch.subject == WATCH_ADDRESS and watch.covers(connection.peer)
                ):
                    fresh.append(watch)
            except Exception as error:
                watch.fail(error)
        if fresh:
            if traced is None:
                traced = self.connections[connection] = Traced.__new__(Traced)
                self.numbered += 1
                traced.number = self.numbered
            traced.watches = known + fresh
            self.tell(fresh, connection, ConnectionOpened, {
                "address": text_of(connection.peer),
                "listener": getattr(connection.listener, "name", None),
                "has_tls": connection.tls is not None,
                "opened_for_ms": self.now_ms() - connection.opened_ms,
            })
        return traced is not None

    cdef bint wants_topics(self) noexcept:
        return self.subjects & WATCH_TOPIC != 0

    cdef uint8_t trace_of(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        cdef Watch watch
        if self.subjects & WATCH_TOPIC:
            for watch in self.watches:
                if watch.subject == WATCH_TOPIC and watch.matches(topic, size):
                    return TRACED_TOPIC
        return 0

    # --- telling ----------------------------------------------------------------------------------------------------

    cdef int64_t now_ms(self) noexcept:
        return self.birth.now_ms[0]

    cdef int64_t wall_ms(self) noexcept:
        return self.birth.now_ms[0] + self.birth.wall_offset_ms

    cdef list watches_of(self, object client):
        # client: a Connection, a Session or a ClientView; None: nobody.
        cdef Traced traced = self.connections.get(client)
        cdef object connection
        if traced is None and client is not None:
            connection = getattr(client, "connection", None)      # of a session
            traced = None if connection is None else self.connections.get(connection)
            if traced is None:
                return self.clients.get(client.client_id)
        return None if traced is None else traced.watches

    cdef list with_topic(self, list watches, const uint8_t* topic, Py_ssize_t size):
        cdef Watch watch
        cdef list found = [] if watches is None else list(watches)
        for watch in self.watches:
            if watch.subject == WATCH_TOPIC and watch.matches(topic, size):
                found.append(watch)
        return found

    cdef object number_of(self, object client):
        cdef Traced traced = self.connections.get(client)
        if traced is None and client is not None:
            traced = self.connections.get(getattr(client, "connection", None))
        return None if traced is None else traced.number

    cdef list having_room(self, list watches, bint is_packet):
        cdef int64_t now_ms = self.now_ms()
        cdef Watch watch
        if not watches:
            return None
        return [watch for watch in watches if watch.has_room(now_ms, is_packet)] or None

    cdef int tell(self, list watches, object client, object kind, dict fields) except -1:
        cdef Watch watch
        watches = self.having_room(watches, False)
        if watches is None:
            return 0
        try:
            entry = kind(
                time_ms=self.wall_ms(),
                client_id=None if client is None else client.client_id or None,
                connection=self.number_of(client),
                **fields,
            )
            for watch in watches:
                watch.give(entry)
        except Exception as error:
            self.break_off(watches, error)
        return 0

    cdef int break_off(self, list watches, object error) except -1:
        cdef Watch watch
        for watch in watches:
            watch.fail(error)
        return 0
