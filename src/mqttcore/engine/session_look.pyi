from mqttcore.engine.message import Message
from mqttcore.engine.session import Session

def queued_from(
    session: Session, place: tuple[int, int, int] | None, limit: int
) -> tuple[list[tuple[int, int, int, bool, Message | None, int, int]], tuple[int, int, int] | None]: ...
def in_flight_from(
    session: Session, after: int, limit: int
) -> tuple[list[tuple[int, str, bool, Message | None, int, int]], int | None]: ...
def awaiting_release_ids(session: Session) -> list[int]: ...
