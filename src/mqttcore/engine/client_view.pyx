"""The client as plugins see it."""


cdef class ClientView:
    """A client on its connection, read-only but for `attributes`.

    `attributes` is a dict for plugins, under keys that begin with their own name; it lasts as long as the connection.
    """

    def __init__(self):
        raise TypeError("ClientView is made by the broker")
