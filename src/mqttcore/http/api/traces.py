"""Traces: what happens to one client, address or topic for a while, page by page or as it comes."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from mqttcore.http.api.mqtt_types import Named
from mqttcore.http.api.operation import ApiError, Call, Limit, Operation
from mqttcore.http.keys import Role
from mqttcore.http.replies import NDJSON
from mqttcore.trace_entries import TraceEntry
from mqttcore.tracing import NAME_PATTERN, Trace, TraceSubject

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["operations"]

_LINES = 500  # written at a time: others wait meanwhile

_Name = Annotated[
    str, Meta(pattern=NAME_PATTERN, description="Letters, digits, dots, dashes and underscores; null: one is made up.")
]
_Number = Annotated[int, Meta(ge=0, le=2**53)]


class TraceGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trace to begin. value: a client id, a Topic Filter, or an address, a network or `unix`.

    payload_bytes: how much of each payload is recorded.
    """

    subject: TraceSubject
    value: Named
    name: _Name | None = None
    duration_s: Annotated[float, Meta(gt=0, le=604_800)] = 600.0
    payload_bytes: Annotated[int, Meta(ge=0, le=1_048_576)] = 0


class TraceShown(msgspec.Struct, frozen=True):
    """A trace. Times are seconds since 1970. ended_s, end_reason: null while it runs.

    first_number, next_number: of the oldest entry held and of the next to come. dropped: entries that made room for
    newer ones; skipped: entries that were over its rate.
    """

    name: str
    subject: TraceSubject
    value: str
    started_s: float
    duration_s: float
    payload_bytes: int
    is_running: bool
    ended_s: float | None
    end_reason: str | None
    entries: int
    first_number: int
    next_number: int
    dropped: int
    skipped: int


class TraceList(msgspec.Struct, frozen=True):
    """Traces, the oldest first."""

    traces: list[TraceShown]


class WhichEntries(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which entries. start: number of the first. wait_s: how long to wait for that one at most, if it is to come."""

    start: _Number = 0
    limit: Limit = 100
    wait_s: Annotated[float, Meta(ge=0, le=10)] = 0.0


class EntryPage(msgspec.Struct, frozen=True):
    """Entries in order. first_number: of the first of them; more than `start` when that one made room already.

    next_number: `start` of the next page. is_running: whether more may come.
    """

    entries: list[TraceEntry]
    first_number: int
    next_number: int
    is_running: bool


def _shown(trace: Trace) -> TraceShown:
    return TraceShown(
        name=trace.name,
        subject=trace.subject,
        value=trace.value,
        started_s=trace.started_s,
        duration_s=trace.duration_s,
        payload_bytes=trace.payload_bytes,
        is_running=trace.is_running,
        ended_s=trace.ended_s,
        end_reason=trace.end_reason,
        entries=len(trace),
        first_number=trace.first,
        next_number=trace.next,
        dropped=trace.dropped,
        skipped=trace.skipped,
    )


def _wait_maximum_s(broker: "Broker") -> float:
    # A request that takes too long is answered by an error, and may come through any of the listeners.
    allowed = (one.http_request_timeout_s for one in broker.config.listeners if one.protocol == "http")
    return min(allowed, default=math.inf) / 2


async def _lines(trace: Trace) -> AsyncIterator[bytes]:
    # What there is now; it does not follow.
    number, end = trace.first, trace.next
    while number < end:
        batch = trace.entries(number, min(_LINES, end - number))
        number = max(number, trace.first) + len(batch)
        yield b"".join(msgspec.json.encode(entry) + b"\n" for entry in batch)
        await asyncio.sleep(0)


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on traces."""

    def find(call: Call) -> Trace:
        trace = broker.traces.get(call.path["name"])
        if trace is None:
            raise ApiError(404, "there is no such trace")
        return trace

    async def list_traces(call: Call) -> TraceList:
        return TraceList([_shown(trace) for trace in broker.traces])

    async def start_trace(call: Call) -> TraceShown:
        given: TraceGiven = call.body
        try:
            trace = broker.traces.start(
                given.subject,
                given.value,
                name=given.name,
                duration_s=given.duration_s,
                payload_bytes=given.payload_bytes,
            )
        except ValueError as error:
            raise ApiError(409, str(error)) from None
        return _shown(trace)

    async def get_trace(call: Call) -> TraceShown:
        return _shown(find(call))

    async def list_trace_entries(call: Call) -> EntryPage:
        trace = find(call)
        wanted: WhichEntries = call.query
        if wanted.wait_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wanted.wait_s, _wait_maximum_s(broker))):
                    await trace.wait(wanted.start)
        entries = trace.entries(wanted.start, wanted.limit)
        first = max(wanted.start, trace.first) if entries else wanted.start
        return EntryPage(entries, first, first + len(entries), trace.is_running)

    async def download_trace(call: Call) -> web.StreamResponse:
        trace = find(call)
        headers = {"Content-Disposition": f'attachment; filename="{trace.name}.ndjson"'}
        return web.Response(body=_lines(trace), content_type=NDJSON, headers=headers)

    async def stop_trace(call: Call) -> TraceShown:
        trace = find(call)
        broker.traces.stop(trace.name)
        return _shown(trace)

    async def delete_trace(call: Call) -> None:
        broker.traces.delete(find(call).name)

    one = "/traces/{name}"
    return [
        Operation(
            method="GET",
            path="/traces",
            role=Role.VIEWER,
            summary="List traces",
            function=list_traces,
            answer=TraceList,
        ),
        Operation(
            method="POST",
            path="/traces",
            role=Role.OPERATOR,
            summary="Trace a client, an address or a topic for a while",
            function=start_trace,
            body=TraceGiven,
            answer=TraceShown,
            errors=(409,),
        ),
        Operation(
            method="GET",
            path=one,
            role=Role.VIEWER,
            summary="Show a trace",
            function=get_trace,
            answer=TraceShown,
            errors=(404,),
        ),
        Operation(
            method="GET",
            path=f"{one}/entries",
            role=Role.OPERATOR,
            summary="List the entries of a trace, or wait for the next ones",
            function=list_trace_entries,
            query=WhichEntries,
            answer=EntryPage,
            errors=(404,),
        ),
        Operation(
            method="GET",
            path=f"{one}/download",
            role=Role.OPERATOR,
            summary="Download the entries of a trace, one JSON object a line",
            function=download_trace,
            answer=str,
            media_type=NDJSON,
            errors=(404,),
        ),
        Operation(
            method="POST",
            path=f"{one}/stop",
            role=Role.OPERATOR,
            summary="End a trace and keep its entries",
            function=stop_trace,
            answer=TraceShown,
            errors=(404,),
        ),
        Operation(
            method="DELETE",
            path=one,
            role=Role.OPERATOR,
            summary="End a trace and forget its entries",
            function=delete_trace,
            errors=(404,),
        ),
    ]
