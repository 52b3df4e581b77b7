"""Event sinks: what all plugins share that send messages and events to somewhere else."""

from mqttcore.sinks.records import EventRecord, MessageRecord, SinkRecord, as_json
from mqttcore.sinks.sink import Sink, SinkConfig, SinkRejected

__all__ = ["EventRecord", "MessageRecord", "Sink", "SinkConfig", "SinkRecord", "SinkRejected", "as_json"]
