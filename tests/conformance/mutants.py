"""Break the broker on purpose, one place at a time, and see that the tests of the statement concerned fail.

    python tests/conformance/mutants.py                    all mutations, in a temporary copy of the tree
    python tests/conformance/mutants.py mqtt5:4.3.3-10     those that carry one of these labels
    python tests/conformance/mutants.py --tree FOLDER      keep the copy and what is built there for the next run

Exit code 1: a mutation survived, its text is not in its file exactly once, or a label has no test that passes before.
The copy is built without optimisation and waits less for packets that do not come; nothing else differs.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "docs", "plugins", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
LEFT_OUT = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info")
PASSED, FAILED, NO_TESTS = 0, 1, 5  # of pytest's exit codes

QUICKER = [
    ("setup.py", '"-O3"', '"-O0"'),
    ("tests/conversations/harness.py", "DEADLINE_S = 60.0", "DEADLINE_S = 3.0"),
]


class Mutation(NamedTuple):
    """One broken place. labels: statements whose tests must see it, each by itself; old stands in the file once."""

    area: str
    labels: tuple[str, ...]
    file: str
    old: str
    new: str


READER = "src/mqttcore/codec/reader.pyx"
NAMES = "src/mqttcore/codec/names.pyx"
VIEWS = "src/mqttcore/codec/views.pyx"
CONNECTION = "src/mqttcore/engine/connection.pyx"
INCOMING = "src/mqttcore/engine/incoming.pyx"
NETWORK_CONNECTION = "src/mqttcore/engine/network_connection.pyx"
ACCEPTOR = "src/mqttcore/engine/acceptor.pyx"
DISPATCHER = "src/mqttcore/engine/dispatcher.pyx"
ENGINE = "src/mqttcore/engine/engine.pyx"
REGISTRAR = "src/mqttcore/engine/registrar.pyx"
OUTLET = "src/mqttcore/engine/outlet.pyx"
EXCHANGES = "src/mqttcore/engine/exchanges.pyx"
SESSION = "src/mqttcore/engine/session.pyx"
TOPICS = "src/mqttcore/engine/topics.pyx"

# By file: going from one file to the next costs a build more.
MUTATIONS = [
    Mutation(
        "CONNECT: reserved flag is let through",
        ("mqtt3:3.1.2-3",),
        READER,
        "if flags & CONNECT_RESERVED and version != VERSION_3_1:",
        "if flags & CONNECT_RESERVED and version == VERSION_5:",
    ),
    Mutation(
        "CONNECT: password without user name is let through",
        ("mqtt3:3.1.2-22",),
        READER,
        "not flags & CONNECT_USER_NAME and version != VERSION_5:",
        "not flags & CONNECT_USER_NAME and version == VERSION_3_1:",
    ),
    Mutation(
        "will: its RETAIN is lost",
        ("mqtt3:3.1.2-17",),
        READER,
        "will.retain = flags & CONNECT_WILL_RETAIN != 0",
        "will.retain = False",
    ),
    Mutation(
        "codec: packet identifier 0 is taken for 1",
        ("mqtt3:2.3.1-1", "mqtt5:2.2.1-3"),
        READER,
        "if packet_id == 0:\n        raise",
        "if packet_id == 0:\n        return 1\n        raise",
    ),
    Mutation(
        "codec: reserved bits of Subscription Options are let through",
        ("mqtt5:3.8.3-5",),
        READER,
        "if options & OPTION_RESERVED:",
        "if options & OPTION_RESERVED == OPTION_RESERVED:",
    ),
    Mutation(
        "codec: flags of the fixed header are not looked at",
        ("mqtt3:2.2.2-2", "mqtt3:3.6.1-1", "mqtt5:2.1.3-1", "mqtt5:3.10.1-1"),
        VIEWS,
        "return ST_OK if flags == expected else ST_RESERVED_FLAGS",
        "return ST_OK if flags & expected == expected else ST_RESERVED_FLAGS",
    ),
    Mutation(
        "shared: `+` in a share name is let through",
        ("mqtt5:4.8.2-2",),
        NAMES,
        "if topic_filter[i] == c'#' or topic_filter[i] == c'+':",
        "if topic_filter[i] == c'#':",
    ),
    Mutation(
        "SUBSCRIBE: `#` may stand before the last level",
        ("mqtt5:4.7.1-1", "mqtt3:4.7.1-2"),
        NAMES,
        "elif not starts_level or i + 1 != size:",
        "elif not starts_level:",
    ),
    Mutation(
        "topics: wildcards see topics that begin with `$`",
        ("mqtt5:4.7.2-1",),
        TOPICS,
        'cdef bint sees_wildcards = size == 0 or topic[0] != c"$"',
        "cdef bint sees_wildcards = True",
    ),
    Mutation(
        "AUTH: PINGREQ is answered while authenticating",
        ("mqtt5:3.1.2-30",),
        CONNECTION,
        "if self.state == STATE_ADMITTING and packet_type != PT_AUTH and packet_type != PT_DISCONNECT:",
        "if self.state == STATE_ADMITTING and packet_type not in (PT_AUTH, PT_DISCONNECT, PT_PINGREQ):",
    ),
    Mutation(
        "CONNECT: a second one is ignored",
        ("mqtt3:3.1.0-2",),
        CONNECTION,
        'return self.fail_with(ProtocolError(RC_PROTOCOL_ERROR, "MQTT-3.1.0-2", "second CONNECT"))',
        "return 0",
    ),
    Mutation(
        "SUBSCRIBE: reason codes stand in another order",
        ("mqtt5:3.9.3-1",),
        CONNECTION,
        "codes.append(self.core.subscribe(self.session, subscription.topic_filter.encode(), options, subid))",
        "codes.insert(0, self.core.subscribe(self.session, subscription.topic_filter.encode(), options, subid))",
    ),
    Mutation(
        "will: published after DISCONNECT as well",
        ("mqtt3:3.1.2-10", "mqtt3:3.14.4-3", "mqtt5:3.14.4-3"),
        CONNECTION,
        'return self.end(packet.reason_code != RC_SUCCESS, "disconnected by client")',
        'return self.end(True, "disconnected by client")',
    ),
    Mutation(
        "PUBLISH: acknowledged with the packet identifier of a neighbour",
        ("mqtt3:2.3.1-6", "mqtt5:2.2.1-5"),
        INCOMING,
        "self.acknowledge((PT_PUBACK if view.qos == 1 else PT_PUBREC) << 4, view.packet_id, reason_code, mark)",
        "self.acknowledge((PT_PUBACK if view.qos == 1 else PT_PUBREC) << 4, view.packet_id ^ 1, reason_code, mark)",
    ),
    Mutation(
        "QoS 2: a repetition is delivered again",
        ("mqtt5:4.3.3-10", "mqtt5:4.3.3-12", "mqtt3:4.3.3-2"),
        INCOMING,
        "return self.acknowledge(PT_PUBREC << 4, view.packet_id, RC_SUCCESS, mark)",
        "pass",
    ),
    Mutation(
        "CONNECT: silence is borne for three times the keep alive",
        ("mqtt3:3.1.2-24",),
        NETWORK_CONNECTION,
        "due = self.last_received_ms + <int64_t>self.keep_alive_s * 1500",
        "due = self.last_received_ms + <int64_t>self.keep_alive_s * 3000",
    ),
    Mutation(
        "DISCONNECT: Reason String goes out over Maximum Packet Size",
        ("mqtt5:3.14.2-3",),
        NETWORK_CONNECTION,
        "if PyBytes_GET_SIZE(packet) > self.maximum_packet_size:",
        "if PyBytes_GET_SIZE(packet) > self.maximum_packet_size + 1000:",
    ),
    Mutation(
        "errors: closes without DISCONNECT",
        ("mqtt5:4.13.1-1",),
        NETWORK_CONNECTION,
        "if send and self.version == 5 and self.state == STATE_CONNECTED:",
        "if send and self.version > 5 and self.state == STATE_CONNECTED:",
    ),
    Mutation(
        "CONNACK: every client without identifier is assigned the same",
        ("mqtt5:3.2.2-16", "mqtt3:3.1.3-6"),
        ACCEPTOR,
        'client_id = f"auto-{secrets.token_hex(8)}-{self.assigned}"',
        'client_id = "auto"',
    ),
    Mutation(
        "PUBLISH: Topic Alias over the client's maximum",
        ("mqtt5:3.3.2-8",),
        ACCEPTOR,
        "<int>properties.get(PROP_TOPIC_ALIAS_MAXIMUM, 0), <int>",
        "<int>properties.get(PROP_TOPIC_ALIAS_MAXIMUM, 0) + 1, <int>",
    ),
    Mutation(
        "retained: QoS 1 and 2 are not kept",
        ("mqtt5:3.3.1-5", "mqtt3:3.3.1-5"),
        DISPATCHER,
        "if pub.retain:",
        "if pub.retain and pub.qos == 0:",
    ),
    Mutation(
        "retained: an empty one does not remove",
        ("mqtt5:3.3.1-6", "mqtt3:3.3.1-10"),
        DISPATCHER,
        "if pub.payload_size == 0:\n            self.retained.remove(pub.topic, pub.topic_size)",
        "if pub.payload_size == 0:\n            pass",
    ),
    Mutation(
        "will: the delay is not waited for",
        ("mqtt5:3.1.3-9",),
        ENGINE,
        "elif session.will_delay_s == 0 or session.session_expiry_s == 0:",
        "elif session.will_delay_s < 3600 or session.session_expiry_s == 0:",
    ),
    Mutation(
        "CONNACK: Session Present is never set",
        ("mqtt3:3.2.2-2",),
        ACCEPTOR,
        r'b"\x20\x02\x01\x00" if present and conn.version == 4',
        r'b"\x20\x02\x01\x00" if present and conn.version == 3',
    ),
    Mutation(
        "CONNACK: refusal without the return code of the standard",
        ("mqtt3:3.1.3-8",),
        ACCEPTOR,
        "conn.refuse(RC_CLIENT_IDENTIFIER_NOT_VALID)           # [v3 MQTT-3.1.3-8]",
        "conn.refuse(RC_NOT_AUTHORIZED)                        # [v3 MQTT-3.1.3-8]",
    ),
    Mutation(
        "sessions: Clean Session 1 resumes",
        ("mqtt3:3.1.2-6", "mqtt3:3.2.2-1"),
        ACCEPTOR,
        "session is not None and not packet.clean_start and not is_replaced",
        "session is not None and (not packet.clean_start or conn.version < 5) and not is_replaced",
    ),
    Mutation(
        "sessions: a second connection does not end the first",
        ("mqtt3:3.1.4-2",),
        ACCEPTOR,
        'old.close_with(RC_SESSION_TAKEN_OVER, True, "another connection took the session over")',
        "old.session = None",
    ),
    Mutation(
        "sessions: expire at twice their time",
        ("mqtt5:4.1.0-2",),
        ENGINE,
        "session.expires_ms = self.now_ms + <int64_t>session.session_expiry_s * 1000",
        "session.expires_ms = self.now_ms + <int64_t>session.session_expiry_s * 2000",
    ),
    Mutation(
        "will: not published when the connection is lost",
        ("mqtt3:3.1.2-8",),
        ENGINE,
        "if not publish_will:",
        "if not publish_will or session.will_delay_s == 0:",
    ),
    Mutation(
        "retained: sent again to a subscriber that asked for new subscriptions only",
        ("mqtt5:3.8.4-4",),
        REGISTRAR,
        "(options >> 4 == 0 or (options >> 4 == 1 and is_new))",
        "options >> 4 < 2",
    ),
    Mutation(
        "AUTH: a method that nobody knows is accepted",
        ("mqtt5:4.12.0-1",),
        ACCEPTOR,
        "conn.refuse(RC_BAD_AUTHENTICATION_METHOD)             # [MQTT-4.12.0-1]",
        "self.accept_session(conn, conn.connect, None)",
    ),
    Mutation(
        "AUTH: the method may change on the way",
        ("mqtt5:4.12.0-5",),
        ACCEPTOR,
        "or packet.properties.get(PROP_AUTHENTICATION_METHOD) != conn.authentication_method\n",
        "",
    ),
    Mutation(
        "PUBLISH: Message Expiry Interval goes out as it came",
        ("mqtt5:3.3.2-6",),
        OUTLET,
        "if pub.expiry_at:",
        "if pub.expiry_at and pub.expires_ms < 0:",
    ),
    Mutation(
        "PUBLISH: RETAIN is handed on to every subscriber",
        ("mqtt5:3.3.1-12", "mqtt3:3.3.1-9"),
        SESSION,
        "(pub.retain and target.retain_as_published)",
        "pub.retain",
    ),
    Mutation(
        "PUBLISH: messages expire only before they are queued",
        ("mqtt5:3.3.2-5",),
        SESSION,
        "self.count_drop_of(DROP_EXPIRED, entry.message)       # [MQTT-3.3.2-5]\n                elif entry.doom:",
        "pass\n                if entry.doom:",
    ),
    Mutation(
        "SUBSCRIBE: No Local is not obeyed",
        ("mqtt5:3.8.3-3",),
        SESSION,
        "if target.own_qos == 0xFF:",
        "if target.own_qos == 0xFE:",
    ),
    Mutation(
        "flow control: more in flight than Receive Maximum",
        ("mqtt5:4.9.0-1", "mqtt5:4.9.0-2"),
        SESSION,
        "and self.sent.count < self.window_size\n",
        "and self.sent.count <= self.window_size\n",
    ),
    Mutation(
        "order: a new message overtakes those that wait",
        ("mqtt5:4.6.0-5",),
        SESSION,
        "and self.queue.count == 0\n            and self.resend == NULL\n",
        "and self.resend == NULL\n",
    ),
    Mutation(
        "shared: QoS 2 in flight moves to another member",
        ("mqtt5:4.8.2-5",),
        SESSION,
        "if slot.group != NULL and slot.state == AWAIT_PUBACK and slot.message != NULL:",
        "if slot.group != NULL and slot.message != NULL:",
    ),
    Mutation(
        "QoS 2: PUBREL is not repeated",
        ("mqtt5:4.3.3-5", "mqtt5:4.4.0-1"),
        EXCHANGES,
        "return self.link.send_ack(0x62, slot.packet_id, 0)",
        "return 0",
    ),
    Mutation(
        "QoS 1 and 2: repeated without DUP",
        ("mqtt5:4.4.0-1", "mqtt3:3.3.1-1"),
        EXCHANGES,
        "&pub, 0x38 | (2 if",
        "&pub, 0x30 | (2 if",
    ),
    Mutation(
        "QoS 2: the exchange begins anew after a refusing PUBREC",
        ("mqtt5:4.3.3-4",),
        EXCHANGES,
        "if reason_code >= 0x80:",
        "if reason_code > 0xFE:",
    ),
]


def copy_tree(tree: Path) -> None:
    """Bring *tree* up to date; files that are the same keep their time, so that they are not built again."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=LEFT_OUT, copy_function=copy_if_other, dirs_exist_ok=True)
        else:
            copy_if_other(source, tree / name)


def copy_if_other(source: str | Path, target: str | Path) -> None:
    """Copy one file as this script wants it."""
    text = Path(source).read_bytes()
    for file, old, new in QUICKER:
        if Path(source) == ROOT / file:
            if text.count(old.encode()) != 1:
                raise SystemExit(f"{file}: not once: {old}")
            text = text.replace(old.encode(), new.encode())
    if not Path(target).exists() or Path(target).read_bytes() != text:
        Path(target).write_bytes(text)


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy and keep what it prints."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def build(tree: Path) -> bool:
    """Build what changed; what the compiler says is printed when it cannot."""
    done = run(tree, "setup.py", "build_ext", "--inplace", "-j2")
    if done.returncode:
        print(done.stdout[-4000:])
    return done.returncode == 0


def failing(tree: Path, labels: Iterable[str], *options: str) -> tuple[int, list[str]]:
    """Run the tests of *labels*; pytest's exit code (negative: it crashed) and the tests that failed."""
    chosen = [f"--label={label}" for label in labels]
    done = run(tree, "-m", "pytest", "tests/conformance", "-q", "--tb=no", "-p", "no:cacheprovider", *options, *chosen)
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?/(test_\w+\.py::\w+)", done.stdout, re.MULTILINE)
    if done.returncode not in (PASSED, FAILED, NO_TESTS) and done.returncode > 0:
        print(done.stdout[-2000:])
    return done.returncode, list(dict.fromkeys(failed))


def try_out(tree: Path, mutation: Mutation) -> bool:
    """Apply one mutation, print one line per label, take it back; whether every label's tests saw it."""
    path = tree / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        print(f"STALE     {mutation.area}: {text.count(mutation.old)} times in {mutation.file}: {mutation.old}")
        return False
    print(f"          {mutation.area}")
    all_killed = True
    try:
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        if not build(tree):
            print("BROKEN    it does not compile")
            return False
        for label in mutation.labels:
            code, failed = failing(tree, [label], "--maxfail=2")
            is_killed = (code == FAILED and bool(failed)) or code < 0
            all_killed = all_killed and is_killed
            said = {NO_TESTS: "no test carries it"}.get(code, ", ".join(failed[:2]))
            if code < 0:
                said = f"crashed with signal {-code}"
            print(f"{'killed' if is_killed else 'SURVIVED':9} {label:15} {said}", flush=True)
    finally:
        path.write_text(text, encoding="utf-8")
    return all_killed


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("labels", nargs="*", metavar="VERSION:LABEL")
    parser.add_argument("--tree", type=Path)
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if not arguments.labels or set(arguments.labels) & set(m.labels)]
    tree = arguments.tree or Path(tempfile.mkdtemp(prefix="mqttcore-mutants-"))
    started = time.monotonic()
    try:
        tree.mkdir(exist_ok=True)
        copy_tree(tree)
        if not build(tree):
            return 1
        print(f"built in {time.monotonic() - started:.0f} s", flush=True)
        code, failed = failing(tree, {label for mutation in chosen for label in mutation.labels})
        if code != PASSED:
            print("the tests of these labels fail without any mutation:", *failed, sep="\n  ")
            return 1
        good = [mutation for mutation in chosen if try_out(tree, mutation)]
        print(f"{len(good)} of {len(chosen)} mutations killed in {time.monotonic() - started:.0f} s")
        return 0 if len(good) == len(chosen) else 1
    finally:
        if arguments.tree is None:
            shutil.rmtree(tree)


if __name__ == "__main__":
    sys.exit(main())
