# What plugins see of a connected client: made only when a hook or handler wants it, one per connection.

from mqttcore.engine.connection cimport Connection


cdef class ClientView:
    cdef Connection connection        # None when it is gone
    cdef readonly str client_id       # empty until the broker assigned one
    cdef readonly str user_name       # of the certificate, the CONNECT or the identity, or None
    cdef readonly str connection_id   # 32 hexadecimal digits
    cdef readonly object address      # (host, port), a path, or None
    cdef readonly str listener        # the listener's name, or None
    cdef readonly object tls          # what the listener knows of the TLS connection, or None
    cdef readonly int protocol_version            # 0: there is no connection
    cdef readonly bint clean_start
    cdef readonly object identity     # mqttcore.Identity, or None: anonymous, or not authenticated yet
    cdef bytes mount                  # its mount point, once it is accepted; None: none
    cdef readonly dict attributes     # for plugins, for as long as the connection lasts

    # The view of a connection whose CONNECT was decoded: made at the first call, the same until the connection is gone
    # and after.
    @staticmethod
    cdef ClientView of(Connection connection)

    # One without a connection, of which only these are known: a client that left a will, say.
    @staticmethod
    cdef ClientView absent(str client_id, str user_name, object identity, bytes mount)

    # The connection of a Connection or ClientView; None: it is gone. TypeError for anything else.
    @staticmethod
    cdef Connection connection_of(object client)
