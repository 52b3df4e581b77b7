"""Configuration: strict TOML into frozen structs; a mistake is a ConfigError that names the key.

Every range and every line of documentation stands in the field's `Meta`; `config_reference.py` makes docs/config.md of
them.
"""

from mqttcore.config.document import Config, LogLevel, from_mapping, load
from mqttcore.config.exposure import check_exposure, is_local, is_loopback, takes_anonymous, trusts_machine
from mqttcore.config.limits import Limits
from mqttcore.config.listener import KeyPair, Listener, Tls
from mqttcore.config.sections import Authorization, Flapping, HttpApi, StoreSettings, Tracing

__all__ = [
    "Authorization",
    "Config",
    "Flapping",
    "HttpApi",
    "KeyPair",
    "Limits",
    "Listener",
    "LogLevel",
    "StoreSettings",
    "Tls",
    "Tracing",
    "check_exposure",
    "from_mapping",
    "is_local",
    "is_loopback",
    "load",
    "takes_anonymous",
    "trusts_machine",
]
