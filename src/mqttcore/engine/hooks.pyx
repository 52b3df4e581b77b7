"""The table of frozen hooks that the engine calls positionally."""


cdef class HookTable:
    """Hooks of one engine, frozen when it is made.

    authenticate(connection, connect) and continue_authentication(connection, auth): each returns True (accept), a
    `Refusal`, a `Challenge`, or `PENDING` when the answer is given later by `Engine.accept`, `Connection.refuse` or
    `Engine.challenge`. None means that nobody authenticates. An exception refuses.
    """

    def __init__(self, *, authenticate: object = None, continue_authentication: object = None) -> None:
        self.authenticate = authenticate
        self.continue_authentication = continue_authentication
        self.mask = (HOOK_AUTHENTICATE if authenticate is not None else 0) | (
            HOOK_CONTINUE_AUTHENTICATION if continue_authentication is not None else 0
        )
