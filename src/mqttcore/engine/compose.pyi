from mqttcore.engine.message import Message
from mqttcore.handlers import PublishChange

__pyx_capi__: dict[str, object]

def changed_message(message: Message, change: PublishChange) -> Message: ...
