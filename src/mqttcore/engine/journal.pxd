# What the engine has to say to its store, gathered into batches, and what may leave once they are safe.
#
# What is durable: sessions with an expiry interval above 0 (clean_start alone does not matter), with their
# subscriptions, queues, windows in both directions and will; and retained messages, when they are to be. The rest never
# comes here: one look at `core.journal`, or at a session's number, tells.
#
# What waits for the batch that covers it, and why; the others leave at once:
#
#   CONNACK       a client that was told "session present: no" or gave a will counts on it. Everything else for that
#                 connection waits behind it.
#   SUBACK, UNSUBACK of a durable session.
#   PUBACK, PUBREC of a message that went to a durable session or was retained: PUBACK means kept.
#   PUBREC        moreover: with it the publisher forgets the message and keeps the id, so id and message must be kept.
#                 A PUBLISH sent again, with an id that is not yet safe, waits like the first.
#   PUBCOMP       of a durable publisher: it will use the id again. Were the id still on disk after a crash, the next
#                 message would be taken for a repetition, and lost.
#   PUBLISH QoS 2 to a durable session: its packet id must be kept, or after a crash the message would go out under
#                 another id and the client take it twice.
#   PUBREL        to a durable session: it lets the client forget the id. Were PUBREC not on disk after a crash, PUBLISH
#                 would come again, and be new to the client.
#
# PUBLISH of QoS 0 and 1, PUBREL that comes, PUBACK and PUBCOMP that come: a crash before they are kept repeats what QoS 1
# allows to repeat, or a PUBREL, which is harmless. So a message that went to all its sessions and was acknowledged before
# its batch is taken leaves nothing to write: records put and deleted in one batch are struck from it.
#
# Acknowledgements to one connection leave in the order in which they came about [MQTT-4.6.0-2..4]: one behind another
# that waits, waits too.
#
# While the store fails, its last batch is offered again and again, the open batch goes on gathering, and what would have
# to be kept is refused beforehand (`failure`): so it does not grow, and nothing is acknowledged that is only in memory.
# What had been taken before and waits for PUBACK is refused as well, and may arrive all the same; what waits for PUBREC
# goes on waiting, for it must not arrive twice.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.message cimport msg_t, stored_t
from mqttcore.engine.subscriber cimport subids_t


cdef class Journal:
    cdef readonly uint64_t number     # of the batch that gathers
    cdef readonly uint64_t safe       # number of the newest batch that is safe; those before it are, too
    cdef uint64_t safe_key            # highest key of that batch or those before
    cdef readonly uint64_t writes     # records put and deleted so far: whoever sees it change has something to wait for
    cdef readonly uint64_t struck     # records that were deleted in the batch that put them: never written
    cdef uint64_t first_key           # of the batch that gathers
    cdef uint64_t next_key
    cdef int64_t wall_offset_ms       # wall clock minus engine clock, fixed at the start: clock jumps change nothing
    cdef uint8_t* data                # framed records
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity
    cdef Py_ssize_t* places           # offset in data of first_key + index; STRUCK: deleted again
    cdef Py_ssize_t places_capacity
    cdef Py_ssize_t struck_count      # of this batch
    cdef Py_ssize_t struck_bytes
    cdef uint64_t* deleted
    cdef Py_ssize_t deleted_count
    cdef Py_ssize_t deleted_capacity
    cdef object under_way             # deque of (number, last key, bytes) of batches taken and not yet safe
    cdef Py_ssize_t bytes_under_way
    cdef readonly Py_ssize_t bytes_maximum        # of all that is not yet safe; above it publishers are paused
    cdef readonly uint8_t failure     # reason code with which durable traffic is refused; 0: the store works
    cdef readonly bint keeps_retained  # retained messages are durable
    cdef list paging                  # Sessions that want messages of their queue
    cdef list starved                 # those whose messages are not yet safe: asked again when a batch is
    cdef list waiting                 # Connections that hold something back
    cdef list paused                  # Connections that are not read because too much is not yet safe

    # A message record for *m*, unless it has one; borrowed until a reference is taken or forget() called.
    cdef stored_t* store(self, msg_t* m) except NULL
    # Deletes a record, 0: none, and with the last that refers to it the message record. Then stored_unref() it.
    cdef int forget(self, uint64_t key, stored_t* stored) except -1
    cdef int delete(self, uint64_t key) except -1
    # The following put a record and give its key. Times are the engine's.
    cdef uint64_t put_session(self, uint64_t number, uint32_t expiry_s, bint is_connected, int64_t expires_ms,
                              uint64_t will, uint32_t will_delay_s, int64_t will_due_ms, bytes client_id,
                              bytes user_name, bytes identity_name, bytes mount) except 0
    cdef uint64_t put_subscription(self, uint64_t session, uint8_t options, uint32_t subid,
                                   bytes topic_filter) except 0
    cdef uint64_t put_entry(self, uint64_t session, uint64_t message, int64_t since_ms, uint16_t packet_id,
                            uint8_t state, uint8_t qos, uint8_t retain, subids_t* ids, bytes share) except 0
    cdef uint64_t put_received(self, uint64_t session, uint16_t packet_id) except 0
    # Retains a stored message; takes no reference.
    cdef int put_retained(self, stored_t* stored) except -1
    # Deletes that record again and what forget() would; gives the reference back.
    cdef int drop_retained(self, stored_t* stored) except -1
    # A key that is not on disk yet.
    cdef bint is_unsafe(self, uint64_t key) noexcept
    # More is not yet safe than memory is meant for.
    cdef bint is_full(self) noexcept
    cdef bint is_empty(self) noexcept
    # Something to write, to read, or to release.
    cdef bint has_work(self)
    # A number that was never a key: of a new session.
    cdef uint64_t new_number(self) noexcept
    # The batch that gathered, and a new one begins; None: there is nothing to write.
    # values: changes of plugin data that go with it.
    cdef object take(self, tuple values)
    # Batches up to *number* are safe.
    cdef int made_safe(self, uint64_t number) except -1
    # Keys up to *last* are taken.
    cdef int start(self, uint64_t last) except -1

    cdef int64_t wall(self, int64_t engine_ms) noexcept
    cdef uint8_t* begin(self, Py_ssize_t body, uint8_t kind) except NULL


# The message of a framed message record, with one reference for the caller. StoreError (corrupt): its sizes do not fit.
# publishers: where its Publisher is shared with other messages.
cdef msg_t* message_of(const uint8_t* record, Py_ssize_t size, int64_t wall_offset_ms, dict publishers) except NULL
# A time of a record on the engine's clock; 0 stays 0, and what lies before the clock's beginning is its first moment.
cdef int64_t engine_time(uint64_t wall_ms, int64_t wall_offset_ms) noexcept
