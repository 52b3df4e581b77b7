"""The state of a broker, sans-io: bytes and a clock go in, bytes and requests come out."""
