"""Topic handlers; handler.pxd says what they are."""

cimport cython

from mqttcore.codec.codes cimport PT_PUBACK, RC_UNSPECIFIED_ERROR
from mqttcore.codec.views cimport has_reason
from mqttcore.engine.subscriber cimport KIND_HANDLER

import logging

from mqttcore.handlers import Consumed, Recipients

REFUSED = Consumed(RC_UNSPECIFIED_ERROR)

log = logging.getLogger("mqttcore.engine")


@cython.final
cdef class Handler(Subscriber):
    """A function that hangs on the topic tree; made by `Engine.add_handler`.

    function(client, message): answers `Consumed`, `Recipients` or None. owner: whose it is, for logs.
    on_failure: called with what it raised, or with what was wrong with its answer; None: that is logged.
    """

    def __init__(
        self, function: object, *, is_authorized_by_itself: bool = False, order: int = 0, owner: str = "",
        on_failure: object = None
    ) -> None:
        self.kind = KIND_HANDLER
        self.function = function
        self.is_authorized_by_itself = is_authorized_by_itself
        self.order = order
        self.owner = owner
        self.on_failure = on_failure

    cdef bint precedes(self, Handler other) noexcept:
        if self.is_authorized_by_itself != other.is_authorized_by_itself:
            return self.is_authorized_by_itself
        return self.order < other.order

    cdef object ask(self, object client, Message message):
        cdef object answer
        self.calls += 1
        try:
            answer = self.function(client, message)
            if answer is None or isinstance(answer, Recipients):
                return answer
            if not isinstance(answer, Consumed):
                raise TypeError(f"a handler answers Consumed, Recipients or None, not {answer!r}")
            if not 0 <= answer.reason_code <= 0xFF or not has_reason(PT_PUBACK, answer.reason_code):
                raise ValueError(f"PUBACK has no reason code {answer.reason_code}")
            return answer
        except Exception as error:
            self.failed(error)
            return REFUSED

    cdef int failed(self, object error) except -1:
        self.failures += 1
        if self.on_failure is not None:
            self.on_failure(error)
            return 0
        if self.failures & (self.failures - 1) == 0:      # the 1st, 2nd, 4th, ...: a client could fill the log as well
            log.error(
                "handler %r of %s failed %d times, the message is refused: %r", self.function, self.owner or "the embedder",
                self.failures, error, exc_info=error,
            )
        return 0
