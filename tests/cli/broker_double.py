"""What `serve` needs of a broker and no more: run as a program it is `mqttcore` with this one in its place.

With `--without-signal-handlers` as first argument the event loop takes none for SIGINT and SIGTERM, as on Windows.

With a plugin called `broken` it does not start, with `slow` it does not stop, with `unreloadable` it does not reload.
"""

import asyncio
import logging
import signal
import sys

from mqttcore.config import check_exposure
from mqttcore.errors import PluginError

_log = logging.getLogger("broker_double")


class Broker:
    def __init__(self, config):
        self._config = config
        self._servers = []
        self.addresses = []

    async def start(self):
        check_exposure(self._config, has_authentication=False)
        if "broken" in self._config.plugins:
            raise PluginError("broken", "startup", "does not start")
        for listener in self._config.listeners:
            server = await asyncio.start_server(self._close, listener.host, listener.port)
            self._servers.append(server)
            host, port = server.sockets[0].getsockname()[:2]
            self.addresses.append((listener.name, host, port))
        _log.info("started on %s", type(asyncio.get_running_loop()).__module__)

    def set_rereading(self, function):
        """Take note of nothing: there is no management API."""

    async def stop(self):
        for server in self._servers:
            server.close()
        if "slow" in self._config.plugins:
            _log.info("stopping for ever")
            await asyncio.get_running_loop().create_future()
        _log.info("stopped")

    async def reload(self, config):
        if "unreloadable" in config.plugins:
            raise RuntimeError("no reload of this")
        changed = config.listeners != self._config.listeners
        self._config = config
        return ["listeners"] if changed else []

    async def _close(self, reader, writer):
        writer.close()


if __name__ == "__main__":
    sys.modules["mqttcore.broker"] = sys.modules["__main__"]
    if sys.argv[1] == "--without-signal-handlers":
        del sys.argv[1]

        def refuse(loop, number, callback, *arguments):
            if number != signal.SIGHUP:
                raise NotImplementedError

        asyncio.SelectorEventLoop.add_signal_handler = refuse
    from mqttcore.cli import main

    main(prog_name="mqttcore")
