"""The engine's side of its store, for a driver that owns both; keeper.pxd and journal.pxd."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t

from mqttcore.codec.codes cimport RC_IMPLEMENTATION_SPECIFIC_ERROR, RC_QUOTA_EXCEEDED
from mqttcore.engine.connection cimport Connection
from mqttcore.engine.inlet cimport PAUSE_STORE
from mqttcore.engine.journal cimport Journal, message_of
from mqttcore.engine.message cimport Message, msg_unref
from mqttcore.engine.session cimport Session
from mqttcore.store.framing cimport KIND_MESSAGE, frame_size, load_u64

from mqttcore.errors import StoreError


@cython.final
cdef class Keeper:
    """Makes an engine durable. Made before the first connection; `Restorer` fills the engine before that, too.

    wall_ms: wall clock at the engine's present time, in milliseconds since 1970; later jumps change nothing.
    bytes_maximum: of batches that are not yet safe; above it publishers of durable messages are not read.

    The driver calls `take_batch` when `set_work` told it to, or when it is time, and commits what it gets, in order,
    several at a time if it likes; then `committed`, or `failed`, and after that the same batch again until it succeeds.
    """

    def __init__(
        self, engine: Engine, *, wall_ms: int, bytes_maximum: int = 16 << 20, keeps_retained: bool = True
    ) -> None:
        self.engine = engine
        self.journal = Journal(
            wall_offset_ms=wall_ms - engine.now_ms, bytes_maximum=bytes_maximum, keeps_retained=keeps_retained
        )
        engine.journal = engine.retained.journal = self.journal

    def set_work(self, callback: object) -> None:
        """Have *callback* called at the end of every turn that leaves something to write, read or release; None: nobody."""
        self.engine.on_journal = callback

    def take_batch(self, values: tuple = ()) -> object:
        """Return the StoreBatch of what happened since the last one, or None when there is nothing to write.

        values: changes of plugin data to go with it.
        """
        if values or not self.journal.is_empty():
            return self.journal.take(values)
        if self.journal.waiting and not self.journal.under_way:
            # All that was to be written was deleted again: what waits for it need not.
            number = self.journal.number
            self.journal.take(())
            self.journal.made_safe(number)
            self.let_go()
        return None

    def committed(self, uint64_t number) -> None:
        """Batches up to *number* are safe: what waited for them is on its way. Flush afterwards."""
        cdef bint has_failed = self.journal.failure != 0
        self.journal.made_safe(number)
        if has_failed:
            self.engine.is_refusing = self.engine.limits.queue_refuse
        self.let_go()

    cdef int let_go(self) except -1:
        cdef Connection connection
        cdef list waiting = self.journal.waiting
        cdef list paused
        self.journal.waiting = []
        for connection in waiting:
            connection.is_waiting = False
            connection.release()
            if connection.holds.count or connection.cork:
                connection.wait_for_store()
        self.ask_again()
        if self.journal.paused and not self.journal.is_full():
            paused = self.journal.paused
            self.journal.paused = []
            for connection in paused:
                connection.resume(PAUSE_STORE)
        return 0

    def failed(self, uint64_t number, kind: str) -> None:
        """Batch *number* could not be kept, for a StoreErrorKind: nothing is safe until it is committed after all.

        Whoever waits for an acknowledgement is refused, and durable messages are, from now on. Flush afterwards.
        """
        cdef Connection connection
        cdef list waiting = self.journal.waiting
        self.journal.failure = RC_QUOTA_EXCEEDED if kind == "full" else RC_IMPLEMENTATION_SPECIFIC_ERROR
        self.engine.is_refusing = True
        self.journal.waiting = []
        for connection in waiting:
            connection.is_waiting = False
            connection.refuse_held(self.journal.failure)
            if connection.holds.count:
                connection.wait_for_store()

    def ask_again(self) -> None:
        """Have sessions ask again for messages that could not be read."""
        self.journal.paging.extend(self.journal.starved)
        self.journal.starved.clear()

    @property
    def is_failing(self) -> bool:
        """Whether the last batch could not be kept."""
        return self.journal.failure != 0

    @property
    def has_work(self) -> bool:
        """Whether there is something to write, to read or to release."""
        return self.journal.has_work()

    def take_reads(self) -> list:
        """Return (session, keys) of each session that wants messages of its queue; read, then call `page_in`.

        Take the batch first: what is to be read may be in it.
        """
        cdef Session session
        cdef list wanted = [], paging = self.journal.paging
        self.journal.paging = []
        for session in paging:
            keys = b"" if session.has_ended else session.page_keys()
            if keys:
                wanted.append((session, keys))
            else:
                session.page_in({})
        return wanted

    def page_in(self, session: Session, keys: bytes, chunk: bytes | None) -> None:
        """Give a session what the store has of what it wanted. Flush afterwards.

        None: it could not be read; the session asks again when a batch is safe, or `ask_again` is called.
        """
        cdef dict messages
        if session.has_ended or self.journal is not self.engine.journal:
            return
        if chunk is None:
            self.journal.starved.append(session)
            return
        messages = dict.fromkeys(memoryview(keys).cast("Q"))
        messages.update(self.messages_of(chunk))
        if not session.page_in(messages):
            session.is_paging = True
            self.journal.starved.append(session)
        session.pump()
        if session.link is not None:
            session.link.mark_dirty()

    def are_safe(self, keys: bytes) -> bool:
        """Say whether the store has been told of the records of these keys, packed as in `take_reads`, and has them."""
        cdef uint64_t key
        for key in memoryview(keys).cast("Q"):
            if self.journal.is_unsafe(key):
                return False
        return True

    def messages_of(self, chunk: bytes) -> dict:
        """Return the messages of a chunk that the store gave, by key. Raises StoreError for what is none."""
        cdef const uint8_t* data
        cdef Py_ssize_t at = 0, used, size
        cdef Message message
        cdef dict messages = {}
        publishers = {}
        data = <const uint8_t*>PyBytes_AS_STRING(chunk)
        size = PyBytes_GET_SIZE(chunk)
        while at < size:
            used = frame_size(data, at, size)
            if used == 0 or data[at + 12] != KIND_MESSAGE:
                raise StoreError("corrupt", f"no message record at byte {at} of what was read")
            m = message_of(data + at, used, self.journal.wall_offset_ms, publishers)
            message = Message.new(m)
            msg_unref(m)
            messages[load_u64(data + at + 4)] = message
            at += used
        return messages
