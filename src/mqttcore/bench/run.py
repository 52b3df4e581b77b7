"""Run a scenario: build clients for the generator, walk through its phases, report what came of it."""

import resource
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import monotonic

from mqttcore.bench.loadgen import LoadError, LoadGenerator
from mqttcore.bench.packets import (
    SAMPLE_PROPERTIES,
    connect_packet,
    publish_template,
    subscribe_packet,
    upgrade_request,
)
from mqttcore.bench.scenarios import SCENARIOS, Scenario, Shape

__all__ = ["LoadError", "Options", "Report", "run_scenario"]

RETAINED = 100_000
WILD_TOPICS = 10_000
WILD_MATCHES = 10
FILTERS_PER_SUBSCRIBE = 100
IDLE_FIRST = 100  # connections made before memory is looked at: they pay for what a broker sets up once


@dataclass(frozen=True)
class Options:
    """What can be changed about a scenario; None keeps the scenario's own value.

    version: 4 or 5. payload: bytes. count: messages (connections for `connect`) instead of a duration, without warm-up.
    batch: messages a write, no more than the window. rate: messages a second of an open loop.
    stall_s: how long a silent broker is waited for.
    durable_subscribers: those that subscribe have sessions that outlive their connections.
    websocket_path: where MQTT is spoken in WebSocket; None: plain TCP, but for scenarios that are about WebSocket.
    """

    host: str
    port: int
    version: int | None = None
    qos: int | None = None
    payload: int = 64
    clients: int | None = None
    batch: int | None = None
    duration_s: float = 5.0
    warm_up_s: float = 1.0
    count: int | None = None
    rate: float = 5_000.0
    stall_s: float = 10.0
    durable_subscribers: bool = False
    tls: ssl.SSLContext | None = None
    websocket_path: str | None = None


@dataclass
class Report:
    """What a run measured.

    messages: deliveries (for `ingest`: messages taken, for `connect` and `idle`: connections) during seconds.
    lost, duplicated, reordered, foreign: over the whole run, warm-up included; all are 0 for a correct broker.
    Latencies are in µs from the moment of sending, in an open loop from the moment that was planned.
    generator_cpu_s: CPU time of this process during seconds.
    """

    scenario: str
    version: int
    qos: int
    payload: int
    messages: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    foreign: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    generator_cpu_s: float = 0.0

    @property
    def is_correct(self) -> bool:
        """Whether every message arrived once and in order, and nothing else did."""
        return not (self.lost or self.duplicated or self.reordered or self.foreign)

    def as_dict(self) -> dict[str, str | int | float]:
        """Return the fields by name, for JSON."""
        return asdict(self)


def _nothing() -> None:
    pass


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass
class _Run:
    """One run under way: the generator, and the two moments between which everything is measured."""

    scenario: Scenario
    options: Options
    on_begin: Callable[[], None]
    on_end: Callable[[], None]
    report: Report
    load: LoadGenerator | None = None
    began: tuple[float, float, int] = field(default=(0.0, 0.0, 0))

    @property
    def version(self) -> int:
        return self.report.version

    @property
    def qos(self) -> int:
        return self.report.qos

    def generator(self, clients: int, publishers: int, flows: int) -> LoadGenerator:
        options = self.options
        path = options.websocket_path or ("/mqtt" if self.scenario.is_websocket else None)
        self.load = load = LoadGenerator(
            options.host,
            options.port,
            version=self.version,
            qos=self.qos,
            payload_size=options.payload,
            clients=clients,
            publishers=publishers,
            flows=flows,
            stall_s=options.stall_s,
            tls=options.tls,
            upgrade=upgrade_request(options.host, path) if path else b"",
        )
        for client in range(clients):
            is_durable = options.durable_subscribers and client >= publishers
            load.set_client(client, connect_packet(client_id(client), self.version, is_durable=is_durable))
        return load

    def begin(self, counter: int) -> None:
        self.on_begin()
        self.began = (monotonic(), _cpu_s(), counter)

    def end(self, counter: int) -> None:
        report = self.report
        report.seconds = monotonic() - self.began[0]
        report.generator_cpu_s = _cpu_s() - self.began[1]
        report.messages = counter - self.began[2]
        self.on_end()
        report.rate = report.messages / report.seconds if report.seconds else 0.0

    def set_publisher(
        self, load: LoadGenerator, publisher: int, topics: list[str], *, copies: int, limit: int | None
    ) -> None:
        """Make client *publisher* the publisher of that number, over *topics*, which are all of one length."""
        scenario = self.scenario
        template = publish_template(
            topics[0],
            self.options.payload,
            qos=self.qos,
            version=self.version,
            retain=scenario.shape is Shape.RETAIN,
            properties=SAMPLE_PROPERTIES if scenario.has_properties else b"",
        )
        load.set_publisher(
            publisher,
            publisher,
            template.data,
            topic_at=template.topic_at,
            topic_size=template.topic_size,
            packet_id_at=template.packet_id_at,
            payload_at=template.payload_at,
            window=scenario.window,
            batch=scenario.batch,
            copies=copies,
            topics="".join(topics).encode() if len(topics) > 1 else b"",
            is_fenced=not (copies or self.qos),
            limit=limit,
        )

    def subscribe(self, load: LoadGenerator, client: int, topic_filters: list[str]) -> None:
        packets = [
            subscribe_packet(1 + at // FILTERS_PER_SUBSCRIBE, topic_filters[at : at + FILTERS_PER_SUBSCRIBE], self.qos,
                             self.version)
            for at in range(0, len(topic_filters), FILTERS_PER_SUBSCRIBE)
        ]  # fmt: skip
        load.request(client, b"".join(packets), len(packets))

    def settle(self, load: LoadGenerator, expected: int) -> None:
        """Fill in what the ledger says; *expected*: deliveries that should have been made."""
        report = self.report
        report.lost = expected - load.ledger.received
        report.duplicated = load.ledger.duplicated
        report.reordered = load.ledger.reordered
        report.foreign = load.foreign
        if load.latency.count:
            report.p50_us, report.p99_us, report.p999_us = (
                load.latency.percentile(share) / 1000 for share in (0.5, 0.99, 0.999)
            )


def _share(count: int | None, publishers: int, publisher: int) -> int | None:
    # The messages of one publisher when *count* are to be sent in all.
    if count is None:
        return None
    return count // publishers + (publisher < count % publishers)


def client_id(client: int) -> str:
    """Return the client id of the generator's client of that number."""
    return f"bench-{client:05}"


def wild_filters(topic: int) -> list[str]:
    """Return the ten filters that match wild topic *topic* and no other."""
    device, group = f"d{topic:05}", f"x{topic % 100:02}"
    return [
        f"wild/{device}/{group}/temp",
        f"wild/{device}/+/temp",
        f"wild/{device}/{group}/+",
        f"wild/{device}/#",
        f"wild/{device}/+/+",
        f"+/{device}/{group}/temp",
        f"+/{device}/+/temp",
        f"+/{device}/#",
        f"wild/{device}/{group}/#",
        f"+/{device}/{group}/+",
    ]


def _build_wild(run: _Run) -> tuple[LoadGenerator, int]:
    """One publisher; filter j of topic n is held by subscriber (10·n + j) mod 101: each message reaches ten clients."""
    subscribers = run.scenario.subscribers
    load = run.generator(1 + subscribers, 1, subscribers)
    held: list[list[str]] = [[] for _ in range(subscribers)]
    due = [bytearray(WILD_TOPICS // 8) for _ in range(subscribers)]
    for topic in range(WILD_TOPICS):
        for j, topic_filter in enumerate(wild_filters(topic)):
            subscriber = (topic * WILD_MATCHES + j) % subscribers
            held[subscriber].append(topic_filter)
            due[subscriber][topic >> 3] |= 1 << (topic & 7)
    topics = [wild_filters(topic)[0] for topic in range(WILD_TOPICS)]
    run.set_publisher(load, 0, topics, copies=WILD_MATCHES, limit=run.options.count)
    load.connect(1 + subscribers)
    for subscriber in range(subscribers):
        load.set_subscriber(
            1 + subscriber, first_publisher=0, publisher_count=1, first_flow=subscriber, due=bytes(due[subscriber])
        )
        run.subscribe(load, 1 + subscriber, held[subscriber])
    load.await_answers()
    return load, WILD_MATCHES


def _build_flow(run: _Run) -> tuple[LoadGenerator, int]:
    """Pairs where there are as many subscribers as publishers; else everybody gets everything. Publishers first."""
    publishers, subscribers = run.scenario.publishers, run.scenario.subscribers
    is_paired = publishers == subscribers
    copies = 1 if is_paired else subscribers
    load = run.generator(publishers + subscribers, publishers, publishers if is_paired else publishers * subscribers)
    topics = [f"bench/{publisher:05}/state" for publisher in range(publishers)]
    if run.scenario.is_p2p:
        topics = [f"bench/p2p/{client_id(publishers + publisher)}" for publisher in range(publishers)]
    for publisher in range(publishers):
        limit = _share(run.options.count, publishers, publisher)
        run.set_publisher(load, publisher, [topics[publisher]], copies=copies, limit=limit)
    load.connect(publishers + subscribers)
    for subscriber in range(subscribers):
        client = publishers + subscriber
        if is_paired:
            load.set_subscriber(client, first_publisher=subscriber, publisher_count=1, first_flow=subscriber)
            run.subscribe(load, client, [topics[subscriber]])
        else:
            load.set_subscriber(
                client, first_publisher=0, publisher_count=publishers, first_flow=subscriber * publishers
            )
            run.subscribe(load, client, ["bench/+/state" if publishers > 1 else "bench/00000/state"])
    load.await_answers()
    return load, copies


def _run_flow(run: _Run) -> None:
    load, copies = _build_wild(run) if run.scenario.name == "wild" else _build_flow(run)
    options = run.options

    def counter() -> int:
        return load.received if copies else load.done

    def start() -> None:
        if run.scenario.shape is Shape.OPEN_LOOP:
            load.start_schedule(options.rate)
        else:
            load.gather(run.scenario.gather_s)
            load.start_publishing()

    if options.count is not None and run.scenario.shape is Shape.FLOW:
        run.begin(counter())
        start()
        load.await_sent()
        run.end(counter())
    else:
        start()
        load.run_for(options.warm_up_s)
        load.latency.clear()
        run.begin(counter())
        load.run_for(options.duration_s)
        run.end(counter())
    load.stop_publishing()
    load.drain(min(2.0, options.stall_s))
    run.settle(load, load.sent * copies)
    if not copies:
        run.report.lost = load.in_flight
    if (load.in_flight or load.unreleased) and not run.report.lost:
        raise LoadError(
            f"all messages arrived, but {load.in_flight} were never acknowledged and {load.unreleased} never released"
        )


def _run_retain(run: _Run) -> None:
    """Subscribing again to the same filter brings everything again [MQTT-3.8.4-3], until the time is over."""
    options = run.options
    count = RETAINED if options.count is None else options.count
    load = run.generator(2, 1, 1)
    topics = [f"retain/{number // 1000:03}/{number % 1000:03}" for number in range(count)]
    run.set_publisher(load, 0, topics, copies=0, limit=count)
    load.set_subscriber(1, first_publisher=0, publisher_count=1, first_flow=0)
    load.connect(2)
    load.start_publishing()
    if not load.await_sent():
        raise LoadError("the broker did not take all the messages to retain")
    load.stop_publishing()
    load.expect_replay()
    run.begin(0)
    until = monotonic() + options.duration_s
    expected = lost = 0
    while not expected or (monotonic() < until and not lost):
        load.ledger.forget()
        run.subscribe(load, 1, ["retain/#"])
        expected += count
        load.await_received(expected)
        load.await_answers()
    run.end(load.received)
    run.settle(load, load.ledger.received)
    run.report.reordered = 0  # different topics have no order among each other


def _run_idle(run: _Run) -> None:
    count = run.scenario.subscribers
    allow_files(count + IDLE_FIRST + 100)
    load = run.generator(IDLE_FIRST + count, 0, 0)
    load.connect(IDLE_FIRST)
    run.begin(load.connects)
    load.connect(IDLE_FIRST + count)
    run.end(load.connects)


def _run_connect(run: _Run) -> None:
    options, concurrency = run.options, run.scenario.subscribers
    load = run.generator(concurrency, 0, 0)
    load.start_storm(concurrency, options.count)
    if options.count is not None:
        run.begin(0)
        load.await_connects(options.count)
    else:
        load.run_for(options.warm_up_s)
        run.begin(load.connects)
        load.run_for(options.duration_s)
    run.end(load.connects)
    load.stop_storm()


def allow_files(count: int) -> None:
    """Raise this process's limit of open files to *count*; LoadError when the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise LoadError(f"{count} open files are needed, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


_RUNNERS: dict[Shape, Callable[[_Run], None]] = {
    Shape.FLOW: _run_flow,
    Shape.OPEN_LOOP: _run_flow,
    Shape.RETAIN: _run_retain,
    Shape.IDLE: _run_idle,
    Shape.CONNECT: _run_connect,
}


def run_scenario(
    name: str, options: Options, on_begin: Callable[[], None] = _nothing, on_end: Callable[[], None] = _nothing
) -> Report:
    """Run scenario *name* against the broker at options.host and options.port, and report.

    on_begin, on_end: called when measuring begins and ends, for reading the broker's CPU time or memory; at on_end of
    `idle` all connections are still open. Blocks for about warm_up_s + duration_s, or until options.count is reached.
    Raises KeyError for an unknown name, LoadError when the broker refuses, breaks off or falls silent.
    """
    scenario = SCENARIOS[name].resized(options.clients).rebatched(options.batch)
    report = Report(
        scenario=name,
        version=options.version or scenario.version,
        qos=scenario.qos if options.qos is None else options.qos,
        payload=options.payload,
    )
    allow_files(scenario.publishers + scenario.subscribers + 100)
    run = _Run(scenario, options, on_begin, on_end, report)
    try:
        _RUNNERS[scenario.shape](run)
    finally:
        if run.load is not None:
            run.load.close()
    return report
