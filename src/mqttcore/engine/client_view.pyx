"""The client as plugins see it."""


cdef class ClientView:
    """A client on its connection, read-only but for `attributes`.

    It outlives the connection. One whose client was gone already when it was made (a will that was delayed) has no
    connection id, address and listener, and protocol_version 0.

    `attributes` is a dict for plugins, under keys that begin with their own name; it lasts as long as the connection.
    """

    def __init__(self):
        raise TypeError("ClientView is made by the broker")

    @staticmethod
    cdef ClientView of(Connection connection):
        cdef ClientView self
        if connection.client is not None:
            return <ClientView>connection.client
        self = ClientView.__new__(ClientView)
        self.connection = connection
        self.connection_id = connection.core.new_connection_id()
        self.client_id = connection.client_id or ""
        if connection.session is not None:
            self.user_name = connection.session.user_name
            self.identity = connection.session.identity
        elif connection.certified_name is not None:
            self.user_name = connection.certified_name    # whatever CONNECT says
        elif connection.connect is not None:
            self.user_name = connection.connect.user_name
        self.address = connection.address()
        self.listener = getattr(connection.listener, "name", None)
        self.tls = (<object>connection).tls           # a driver's property
        self.protocol_version = connection.version
        self.clean_start = connection.clean_start
        self.mount = connection.mount
        self.attributes = {}
        connection.client = self
        return self

    @staticmethod
    cdef ClientView absent(str client_id, str user_name, object identity, bytes mount):
        cdef ClientView self = ClientView.__new__(ClientView)
        self.client_id = client_id
        self.connection_id = ""
        self.user_name = user_name
        self.identity = identity
        self.mount = mount
        self.attributes = {}
        return self

    @staticmethod
    cdef Connection connection_of(object client):
        if isinstance(client, ClientView):
            return (<ClientView>client).connection
        return <Connection?>client

    @property
    def is_gone(self) -> bool:
        """Whether the connection has ended."""
        return self.connection is None

    @property
    def mount_point(self) -> str:
        """Prefix of its topics, which the client neither says nor hears; "" for none, and before it is accepted."""
        return "" if self.mount is None else self.mount.decode()

    def __repr__(self):
        return f"<ClientView {self.client_id!r} {self.connection_id}>"
