"""The table of frozen hooks that the engine calls positionally."""

import logging

log = logging.getLogger("mqttcore.engine")

PENDING = object()            # the answer of a hook that answers later


cdef class HookTable:
    """Hooks of one engine, frozen when it is made: each is one callable with all arguments positional, or None.

    Several plugins are folded into one callable before they come here. What each answers stands in `hookspecs`; the three
    that may be asynchronous (authenticate, continue_authentication, authorize_subscribe) answer `PENDING` instead of an
    awaitable, and the answer is given later: `Engine.answer`, `Engine.answer_subscribe`. An exception refuses.

        admit(client, connect)                    authorize_publish(client, topic, qos, retain)
        authenticate(client, connect)             authorize_deliver(client, message)
        continue_authentication(client, auth)     transform_publish(client, message)
        authorize_subscribe(client, topic_filter, qos)

    on_failure(hook, error): takes what a hook raised, or did not answer as it should; without it that is logged.
    """

    def __init__(
        self, *, admit: object = None, authenticate: object = None, continue_authentication: object = None,
        authorize_subscribe: object = None, authorize_publish: object = None, authorize_deliver: object = None,
        transform_publish: object = None, on_failure: object = None,
    ) -> None:
        self.admit = admit
        self.authenticate = authenticate
        self.continue_authentication = continue_authentication
        self.authorize_subscribe = authorize_subscribe
        self.authorize_publish = authorize_publish
        self.authorize_deliver = authorize_deliver
        self.transform_publish = transform_publish
        self.on_failure = on_failure
        for bit, hook in (
            (HOOK_ADMIT, admit),
            (HOOK_AUTHENTICATE, authenticate),
            (HOOK_CONTINUE_AUTHENTICATION, continue_authentication),
            (HOOK_AUTHORIZE_SUBSCRIBE, authorize_subscribe),
            (HOOK_AUTHORIZE_PUBLISH, authorize_publish),
            (HOOK_AUTHORIZE_DELIVER, authorize_deliver),
            (HOOK_TRANSFORM_PUBLISH, transform_publish),
        ):
            if hook is not None:
                self.mask |= bit

    cdef int failed(self, str hook, object client, object error) except -1:
        if self.on_failure is not None:
            self.on_failure(hook, error)
        else:
            log.error("client %s: %s", client, hook, exc_info=error)
        return 0
