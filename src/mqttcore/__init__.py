"""mqttcore: an MQTT 3.1, 3.1.1 and 5.0 broker to embed in Python applications."""

from mqttcore._version import __version__

__all__ = ["__version__"]
