"""What the broker says of itself: configuration, metrics, alarms; and its log level."""

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from mqttcore._version import __version__
from mqttcore.config import LogLevel
from mqttcore.errors import ConfigError, PluginError
from mqttcore.http.api.operation import ApiError, Call, Operation
from mqttcore.http.keys import Role
from mqttcore.plugins.loading import enabled
from mqttcore.settings import HIDDEN, visible

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["operations"]


class BrokerShown(msgspec.Struct, frozen=True):
    """The broker."""

    version: str
    is_ready: bool
    sessions: int
    connections: int


class Metrics(msgspec.Struct, frozen=True):
    """Counters and gauges by name."""

    metrics: dict[str, int]


class AlarmShown(msgspec.Struct, frozen=True):
    """An alarm that is raised."""

    name: str
    text: str


class AlarmList(msgspec.Struct, frozen=True):
    """Alarms by name."""

    alarms: list[AlarmShown]


class Configuration(msgspec.Struct, frozen=True):
    """What is in force, with defaults, without secrets."""

    configuration: dict[str, Any]


class Reread(msgspec.Struct, frozen=True):
    """Key paths of what changed and needs a restart; the rest is in force."""

    needing_restart: list[str]


class LogLevelNow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Least severe records that are logged, until the process ends."""

    level: LogLevel


def _configuration(broker: "Broker") -> dict[str, Any]:
    # Of plugins, what their tables mean, not what they say: those that are strings may be secret.
    plugins = {one.name: {} if one.settings is None else visible(one.settings) for one in enabled(broker.config)}
    plugins |= {name: {HIDDEN: HIDDEN} for name in broker.config.plugins if name not in plugins}
    shown: dict[str, Any] = visible(msgspec.structs.replace(broker.config, plugins=plugins))
    return shown


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on the broker itself."""

    async def get_broker(call: Call) -> BrokerShown:
        metrics = broker.metrics()
        return BrokerShown(__version__, broker.is_ready, metrics["sessions"], metrics["connections"])

    async def get_metrics(call: Call) -> Metrics:
        return Metrics(broker.metrics())

    async def list_alarms(call: Call) -> AlarmList:
        return AlarmList([AlarmShown(name, text) for name, text in sorted(broker.alarms.items())])

    async def get_configuration(call: Call) -> Configuration:
        return Configuration(_configuration(broker))

    async def reread_configuration(call: Call) -> Reread:
        try:
            return Reread(await broker.reread())
        except (ConfigError, PluginError) as error:
            raise ApiError(409, f"the former configuration stays in force: {error}") from None

    async def get_log_level(call: Call) -> LogLevelNow:
        level = logging.getLogger("mqttcore").getEffectiveLevel()
        return msgspec.convert({"level": logging.getLevelName(level).lower()}, LogLevelNow)

    async def set_log_level(call: Call) -> None:
        logging.getLogger("mqttcore").setLevel(call.body.level.upper())

    looks = (
        ("/broker", "Show the broker", get_broker, BrokerShown, Role.VIEWER),
        ("/metrics", "Show counters and gauges", get_metrics, Metrics, Role.VIEWER),
        ("/alarms", "List alarms that are raised", list_alarms, AlarmList, Role.VIEWER),
        ("/configuration", "Show the configuration in force", get_configuration, Configuration, Role.ADMIN),
        ("/log-level", "Show the log level", get_log_level, LogLevelNow, Role.VIEWER),
    )
    return [
        *(
            Operation(method="GET", path=path, role=role, summary=summary, function=function, answer=answer)
            for path, summary, function, answer, role in looks
        ),
        Operation(
            method="POST",
            path="/configuration/reload",
            role=Role.ADMIN,
            summary="Read the configuration file again, as SIGHUP does",
            function=reread_configuration,
            answer=Reread,
            errors=(409,),
        ),
        Operation(
            method="PUT",
            path="/log-level",
            role=Role.ADMIN,
            summary="Set the log level",
            function=set_log_level,
            body=LogLevelNow,
        ),
    ]
