"""A server that does what a test tells it, packet by packet: it can give wrong and hostile answers."""

import asyncio
from contextlib import asynccontextmanager

from mqttcore.codec import ConnAck, Connect, Decoder

DEADLINE_S = 60.0


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._packets = []
        self.version = 4

    async def receive(self):
        """Return the next packet, None at the end of the stream."""
        async with asyncio.timeout(DEADLINE_S):
            while not self._packets:
                data = await self._reader.read(65536)
                if not data:
                    return None
                self._packets = list(self._decoder.feed(data))
        packet = self._packets.pop(0)
        if isinstance(packet, Connect):
            self.version = packet.protocol_version
        return packet

    async def expect(self, kind):
        packet = await self.receive()
        assert type(packet) is kind, packet
        return packet

    async def accept(self, **connack):
        """Take CONNECT, answer it and return it."""
        connect = await self.expect(Connect)
        await self.send(ConnAck(**connack))
        return connect

    async def send(self, *packets):
        await self.send_bytes(b"".join(packet.encode(self.version) for packet in packets))

    async def send_bytes(self, data):
        self._writer.write(data)
        async with asyncio.timeout(DEADLINE_S):
            await self._writer.drain()

    def cut(self):
        self._writer.transport.abort()

    async def close(self):
        self._writer.close()


class ScriptedServer:
    def __init__(self):
        self.port = 0
        self._peers = asyncio.Queue()

    async def peer(self):
        """Return the next connection."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._peers.get()

    @asynccontextmanager
    async def running(self):
        accepted = []

        async def accept(reader, writer):
            peer = Peer(reader, writer)
            accepted.append(peer)
            await self._peers.put(peer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            for peer in accepted:
                peer.cut()
            server.close()
            await server.wait_closed()
