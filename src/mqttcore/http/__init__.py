"""HTTP: the service beside MQTT, and MQTT in WebSocket. Built on aiohttp; speaks to `Broker` only.

`websocket_handler` serves MQTT at a route of an aiohttp application of one's own; `make_app` is the application that
listeners with `protocol = "http"` serve.
"""

from mqttcore.http.app import make_app
from mqttcore.http.websocket import websocket_handler

__all__ = ["make_app", "websocket_handler"]
