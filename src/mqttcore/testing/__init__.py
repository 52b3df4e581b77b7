"""For authors of plugins: a broker and clients in memory, a clock to set, and the contracts of mqttcore as tests.

Works with plain pytest; `async_test` makes a test of a coroutine function where no plugin of pytest does.
`mqttcore.testing.store` has the contract of stores and needs pytest-asyncio.
"""

from mqttcore.testing.broker import HookCall, MemoryBroker
from mqttcore.testing.client import MemoryClient
from mqttcore.testing.clock import Clock
from mqttcore.testing.plugin import AuthenticatorContract, Credentials, assert_plugin_is_well_formed, async_test

__all__ = [
    "AuthenticatorContract",
    "Clock",
    "Credentials",
    "HookCall",
    "MemoryBroker",
    "MemoryClient",
    "assert_plugin_is_well_formed",
    "async_test",
]
