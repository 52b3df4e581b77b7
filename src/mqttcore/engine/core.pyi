from typing_extensions import disjoint_base

from mqttcore.engine.events import EventLog
from mqttcore.engine.hooks import HookTable
from mqttcore.engine.permissions import Rulebook
from mqttcore.engine.retained import RetainedTree
from mqttcore.engine.topics import TopicTree

@disjoint_base
class Core:
    @property
    def topics(self) -> TopicTree: ...
    @property
    def events(self) -> EventLog: ...
    @property
    def retained(self) -> RetainedTree: ...
    @property
    def hooks(self) -> HookTable: ...
    @property
    def rulebook(self) -> Rulebook: ...
    @property
    def is_memory_full(self) -> bool: ...
