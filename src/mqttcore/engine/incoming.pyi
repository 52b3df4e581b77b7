from typing_extensions import disjoint_base

from mqttcore.engine.acknowledger import Acknowledger

@disjoint_base
class Incoming(Acknowledger): ...
