"""`mqttcore pub` and `sub` with mosquitto as broker and its clients as peers."""

import json
import os
import signal
import socket
import subprocess
import threading

import pytest

pytestmark = pytest.mark.interop

VERSIONS = ["31", "311", "5"]


@pytest.fixture
def topic(request):
    """Return a topic of this test's own; one mosquitto serves them all."""
    return f"test/{abs(hash(request.node.name))}"


@pytest.fixture
def pub(command_line, mosquitto):
    return lambda *arguments, **options: command_line.run("pub", "-p", mosquitto.port, *arguments, **options)


@pytest.fixture
def sub(command_line, mosquitto):
    return lambda *arguments, **options: command_line.run("sub", "-p", mosquitto.port, *arguments, **options)


class Listening:
    """A subscriber that is subscribed, as its debug output shows, and ends by its -C."""

    def __init__(self, process):
        self._process = process
        self._subscribed = threading.Event()
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        assert self._subscribed.wait(60)

    def _read_errors(self):
        for line in self._process.stderr:
            if line.startswith(b"received SubAck"):
                self._subscribed.set()

    def finish(self):
        """Return what was printed, once the subscriber has ended."""
        printed = self._process.stdout.read()
        assert self._process.wait(60) == 0
        self._reader.join(60)
        return printed


@pytest.fixture
def listen(command_line, mosquitto, topic):
    def start(count, *arguments):
        arguments = ["-d", "-t", f"{topic}/#", "-C", count, *arguments]
        return Listening(command_line.start("sub", "-p", mosquitto.port, *arguments))

    return start


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_published_message_arrives_at_mosquitto_sub(mosquitto, pub, topic, version, qos):
    assert pub("-t", topic, "-m", "hällo", "-q", qos, "-V", version, "-r").returncode == 0
    with mosquitto.start("mosquitto_sub", "-t", topic, "-q", "2", "-C", "1", "-F", "%t %p %q %r", "-W", "60") as peer:
        assert peer.communicate()[0] == f"{topic} hällo {qos} 1\n".encode()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_message_of_mosquitto_pub_is_printed(mosquitto, sub, topic, version, qos):
    with mosquitto.start("mosquitto_pub", "-t", topic, "-m", "hällo", "-q", qos, "-r") as peer:
        assert peer.wait() == 0
    result = sub("-t", topic, "-q", "2", "-C", "1", "-V", version, "-F", "%t %p %q %r", "-W", "60")
    assert (result.returncode, result.stdout) == (0, f"{topic} hällo {qos} 1\n".encode())


def test_each_line_of_standard_input_is_a_message(pub, listen, topic):
    subscriber = listen(1001, "-q", "1")
    lines = b"".join(b"line %d\n" % number for number in range(999)) + b"\r\nno end"
    assert pub("-t", topic, "-l", "-q", "1", "-M", "7", input=lines).returncode == 0
    # An empty message prints nothing, but counts.
    assert subscriber.finish().splitlines() == [*[b"line %d" % number for number in range(999)], b"no end"]


def test_line_is_published_as_soon_as_it_is_there(command_line, mosquitto, listen, topic):
    subscriber = listen(1)
    process = command_line.start("pub", "-p", mosquitto.port, "-t", topic, "-l", stdin=subprocess.PIPE)
    process.stdin.write(b"now\n")
    process.stdin.flush()
    assert subscriber.finish() == b"now\n"
    process.stdin.close()
    assert process.wait(60) == 0


def test_whole_input_and_files_are_payloads(pub, sub, topic, tmp_path):
    payload = bytes(range(256)) * 1000
    file = tmp_path / "payload"
    file.write_bytes(payload)
    assert pub("-t", f"{topic}/file", "-f", file, "-r").returncode == 0
    assert pub("-t", f"{topic}/stdin", "-s", "-r", input=payload).returncode == 0
    for name in ("file", "stdin"):
        assert sub("-t", f"{topic}/{name}", "-C", "1", "-N", "-W", "60").stdout == payload
    absent = pub("-t", topic, "-f", tmp_path / "absent")
    assert (absent.returncode, absent.stderr.count(b"No such file")) == (1, 1)


def test_null_message_clears_what_is_retained(pub, sub, topic):
    pub("-t", topic, "-m", "x", "-r")
    pub("-t", topic, "-n", "-r")
    result = sub("-t", topic, "-W", "0.3")
    assert (result.returncode, result.stdout, result.stderr) == (27, b"", b"mqttcore: timed out\n")


def test_repetitions(pub, listen, topic):
    subscriber = listen(4, "-v")
    assert pub("-t", topic, "-m", "again", "--repeat", "3", "--repeat-delay", "0.01", "-q", "1").returncode == 0
    assert pub("-t", topic, "-n", "-q", "1").returncode == 0
    assert subscriber.finish() == f"{topic} again\n".encode() * 3 + f"{topic} (null)\n".encode()


def test_properties_travel_both_ways(mosquitto, pub, listen, topic):
    listed = (
        "user-property a b content-type text/plain response-topic r/t correlation-data c payload-format-indicator 1"
    )
    words = iter(listed.split())
    options = []
    for name in words:
        options += ["-D", "publish", name, next(words), *([next(words)] if name == "user-property" else [])]
    shown = "%P|%C|%R|%D|%F|%E"
    ours = listen(1, "-V", "5", "-F", shown, "-q", "1")
    with mosquitto.start("mosquitto_sub", "-V", "5", "-t", topic, "-E", "-c", "-i", "waits", "-q", "1") as peer:
        assert peer.wait() == 0
    assert (
        pub("-t", topic, "-m", "x", "-q", "1", *options, "-D", "publish", "message-expiry-interval", "9").returncode
        == 0
    )
    arguments = ["-V", "5", "-t", topic, "-c", "-i", "waits", "-q", "1", "-C", "1", "-W", "60", "-F", shown]
    with mosquitto.start("mosquitto_sub", *arguments) as peer:
        assert peer.communicate()[0].startswith(b"a:b|text/plain|r/t|c|1|")
    assert ours.finish() == b"a:b|text/plain|r/t|c|1|9\n"


def test_subscription_identifier_is_shown(pub, listen, topic):
    subscriber = listen(1, "--subscription-id", "77", "-F", "%S %p")
    pub("-t", topic, "-m", "x", "-q", "1")
    assert subscriber.finish() == b"77 x\n"


def test_json_output(pub, sub, topic):
    pub("-t", topic, "-m", '{"a": [1.50]}', "-r", "-q", "1")
    shown = json.loads(sub("-t", topic, "-C", "1", "-F", "%J", "-q", "1", "-W", "60").stdout)
    assert shown["payload"] == {"a": [1.5]}
    assert (shown["topic"], shown["qos"], shown["retain"], shown["payloadlen"]) == (topic, 1, 1, 13)


def test_filters_of_output(pub, sub, topic):
    for name in ("a", "b", "c"):
        pub("-t", f"{topic}/{name}", "-m", name, "-r")
    for name, others in (("a", {b"b", b"c"}), ("b", {b"a", b"c"}), ("c", {b"a", b"b"})):
        # unfiltered, the first two of the three would be printed, and one of them is left out here
        shown = sub("-t", f"{topic}/#", "-T", f"{topic}/{name}", "-C", "2", "-W", "60")
        assert set(shown.stdout.split()) == others
    assert sub("-t", f"{topic}/a", "-t", f"{topic}/c", "-C", "2").stdout in (b"a\nc\n", b"c\na\n")


def test_retained_messages_can_be_left_out(pub, listen, topic):
    pub("-t", topic, "-m", "old", "-r")
    subscriber = listen(1, "-R")
    pub("-t", topic, "-m", "new", "-q", "1")
    assert subscriber.finish() == b"new\n"


def test_retained_messages_are_removed_but_for_those_filtered_out(pub, sub, topic):
    for name in ("a", "b"):
        pub("-t", f"{topic}/{name}", "-m", name, "-r")
    removing = sub("-t", f"{topic}/#", "-T", f"{topic}/b", "--remove-retained", "-C", "1", "-v")
    assert removing.stdout == f"{topic}/a a\n".encode()
    assert sub("-t", f"{topic}/#", "-C", "1", "-v").stdout == f"{topic}/b b\n".encode()


def test_retained_only_ends_at_the_first_other_message(command_line, mosquitto, pub, topic):
    pub("-t", topic, "-m", "old", "-r")
    process = command_line.start("sub", "-p", mosquitto.port, "-t", topic, "--retained-only")
    assert process.stdout.readline() == b"old\n"
    pub("-t", topic, "-m", "new")
    assert process.wait(60) == 0
    assert process.stdout.read() == b""


def test_retain_flag_as_published(pub, listen, topic):
    subscriber = listen(1, "--retain-as-published", "-F", "%r %p")
    pub("-t", topic, "-m", "x", "-r", "-q", "1")
    assert subscriber.finish() == b"1 x\n"


def test_session_is_kept_and_resumed(pub, sub, topic):
    session = ["-i", f"keeper-{os.getpid()}", "-c", "-q", "1"]
    assert sub("-t", topic, *session, "-E").returncode == 0
    pub("-t", topic, "-m", "while away", "-q", "1")
    assert sub("-t", topic, *session, "-C", "1", "-W", "60").stdout == b"while away\n"
    assert sub("-U", topic, *session, "-E").returncode == 0
    pub("-t", topic, "-m", "unheard", "-q", "1")
    assert sub("-U", topic, *session, "-W", "0.5").stdout == b""


def test_will_is_published_when_the_client_dies(command_line, mosquitto, listen, topic):
    subscriber = listen(1, "-v")
    will = ["--will-topic", f"{topic}/will", "--will-payload", "died", "--will-qos", "1", "--will-retain"]
    process = command_line.start("sub", "-p", mosquitto.port, "-t", "$SYS/broker/version", "-V", "5", *will)
    assert process.stdout.readline().startswith(b"mosquitto")
    process.kill()
    assert subscriber.finish() == f"{topic}/will died\n".encode()


def test_will_is_not_published_when_the_client_is_stopped(command_line, mosquitto, pub, listen, topic):
    subscriber = listen(1, "-v")
    will = ["--will-topic", f"{topic}/will", "--will-payload", "died"]
    process = command_line.start("sub", "-p", mosquitto.port, "-t", "$SYS/broker/version", *will)
    assert process.stdout.readline().startswith(b"mosquitto")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    pub("-t", topic, "-m", "end", "-q", "1")
    assert subscriber.finish() == f"{topic} end\n".encode()


@pytest.mark.parametrize(("version", "text"), [("5", b"Not authorized (135)"), ("311", b"Not authorized (135)")])
@pytest.mark.parametrize("command", ["pub", "sub"])
def test_refused_connection_says_why(command_line, mosquitto, command, version, text):
    arguments = ["-p", mosquitto.guarded_port, "-t", "a", "-V", version, *(["-m", "x"] if command == "pub" else [])]
    result = command_line.run(command, *arguments)
    assert result.returncode == 135
    assert result.stderr == b"mqttcore: connection refused: " + text + b"\n"
    assert command_line.run(command, *arguments, "--quiet").stderr == b""


def test_password_from_the_environment_and_from_a_url(command_line, mosquitto):
    environment = {**os.environ, "MQTT_USERNAME": "ann", "MQTT_PASSWORD": "secret"}
    assert command_line.run("pub", "-p", mosquitto.guarded_port, "-t", "a", "-m", "x", env=environment).returncode == 0
    url = f"mqtt://ann:secret@127.0.0.1:{mosquitto.guarded_port}/a"
    assert command_line.run("pub", "-L", url, "-m", "x").returncode == 0
    assert command_line.run("pub", "-L", url.replace("secret", "wrong"), "-m", "x").returncode == 135


def test_debug_shows_packets_but_no_password(command_line, mosquitto):
    result = command_line.run(
        "pub", "-p", mosquitto.guarded_port, "-u", "ann", "-P", "secret", "-t", "a", "-m", "x", "-d"
    )
    assert b"sending Connect(" in result.stderr
    assert b"received ConnAck(" in result.stderr
    assert b"secret" not in result.stderr


def test_nobody_listening_is_one_line(command_line):
    with socket.socket() as bound:  # bound, not listening: nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        result = command_line.run("pub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-m", "x")
    assert result.returncode == 1
    assert result.stderr == f"mqttcore: cannot connect to 127.0.0.1:{port}: Connection refused\n".encode()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["pub", "-t", "a"], b"exactly one of -m"),
        (["pub", "-t", "a", "-m", "x", "-n"], b"exactly one of -m"),
        (["pub", "-m", "x"], b"-t is needed"),
        (["sub"], b"-t is needed"),
        (["sub", "-t", "a", "-c"], b"-c needs -i"),
        (["sub", "-t", "a", "-P", "x"], b"a password needs a user name"),
        (["sub", "-t", "a", "--will-payload", "x"], b"--will-topic"),
        (["sub", "-t", "a", "-V", "311", "-x", "5"], b"need MQTT 5"),
        (["sub", "-t", "a", "-x", "soon"], b"neither seconds"),
        (["sub", "-t", "a", "-F", "%y"], b"unknown sequence"),
        (["sub", "-L", "http://x/"], b"not like mqtt://"),
        (["sub", "-t", "a", "-R", "--retained-only"], b"exclude each other"),
    ],
)
def test_wrong_usage_is_exit_code_2(command_line, arguments, error):
    result = command_line.run(*arguments)
    assert result.returncode == 2
    assert error in result.stderr


def test_invalid_topic_is_an_error_without_traceback(pub, sub):
    for result in (pub("-t", "a/+", "-m", "x"), sub("-t", "a/#/b")):
        assert result.returncode == 1
        assert result.stderr.startswith(b"mqttcore: ")
        assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_pub_that_waits_for_lines(command_line, mosquitto, topic, listen, number):
    subscriber = listen(1)
    process = command_line.start("pub", "-p", mosquitto.port, "-t", topic, "-l", stdin=subprocess.PIPE)
    process.stdin.write(b"one\n")
    process.stdin.flush()
    subscriber.finish()
    process.send_signal(number)
    assert process.wait(60) == 0
    assert process.stderr.read() == b""


def test_lost_connection_ends_pub_that_waits_for_lines(command_line):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        arguments = ["pub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-l"]
        process = command_line.start(*arguments, stdin=subprocess.PIPE)
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"\x20\x02\x00\x00")  # CONNACK of 3.1.1, accepted
    assert process.wait(60) == 1
    assert process.stderr.read() == b"mqttcore: connection lost: the server closed the connection\n"


def test_lost_connection_ends_pub_whose_input_has_no_end(command_line):
    with socket.create_server(("127.0.0.1", 0)) as server, subprocess.Popen("yes", stdout=subprocess.PIPE) as endless:
        port = server.getsockname()[1]
        process = command_line.start("pub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-l", stdin=endless.stdout)
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"\x20\x02\x00\x00")
            received = 0
            while received < 1_000_000:
                received += len(connection.recv(65_536))
        try:
            assert process.wait(60) == 1
        finally:
            endless.kill()
    error = process.stderr.read()
    assert error.startswith(b"mqttcore: connection lost: ")
    assert error.count(b"\n") == 1


def test_sub_connects_again_when_told(command_line):
    accepted, subscribed, message = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00", b"\x30\x04\x00\x01ax"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        arguments = ["sub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-C", "1"]

        def serve(sent):
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1000)[0] == 0x10
                connection.sendall(accepted)
                assert connection.recv(1000)[0] == 0x82
                connection.sendall(subscribed + sent)
                if sent:
                    assert connection.recv(1000) == b"\xe0\x00"

        giving_up = command_line.start(*arguments)
        serve(b"")
        trying_again = command_line.start(*arguments, "--reconnect")
        for sent in (b"", message):
            serve(sent)
        out, err = trying_again.communicate(timeout=60)
        assert (trying_again.returncode, out) == (0, b"x\n")
        assert err == b"mqttcore: connection lost: the server closed the connection; trying again in 1 s\n"
        out, err = giving_up.communicate(timeout=60)
        assert (giving_up.returncode, out) == (1, b"")
        assert err == b"mqttcore: connection lost: the server closed the connection\n"


def test_reader_that_goes_away_ends_sub(command_line, mosquitto, pub, topic):
    pub("-t", topic, "-m", "x", "-r")
    process = command_line.start("sub", "-p", mosquitto.port, "-t", topic)
    assert process.stdout.readline() == b"x\n"
    process.stdout.close()
    while process.poll() is None:
        pub("-t", topic, "-m", "y")
    assert process.returncode == 1
    assert process.stderr.read() == b""
