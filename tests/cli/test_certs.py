"""Certificates made, the broker served with them, clients of the shell over TLS: what README.md shows."""

import re
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker_process import BrokerProcess, running_broker

ROOT = Path(__file__).parents[2]
MQTTCORE = [sys.executable, "-m", "mqttcore"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MQTTCORE, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    done = run("certs", tmp_path / "private", "--name", "localhost", "--name", "127.0.0.1", "--client", "alice")
    assert done.returncode == 0, done.stderr
    return tmp_path / "private"


@pytest.fixture
def broker(private: Path, tmp_path: Path):
    text = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]
    text = text.replace('"private/', f'"{private}/').replace("port = 8883", "port = 0")
    with running_broker(tmp_path, text, kind="mqttcore") as process:
        yield process


def test_keys_are_closed_to_others_and_certificates_verify(private: Path):
    for key in ("ca.key", "server.key", "alice.key"):
        assert stat.S_IMODE((private / key).stat().st_mode) == 0o600
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "server.crt", "alice.crt"],
        cwd=private,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "server.crt: OK\nalice.crt: OK\n", done.stderr


def test_authority_and_server_that_are_there_are_kept_for_a_new_client(private: Path, tmp_path: Path):
    kept = {path.name: path.read_bytes() for path in private.iterdir()}
    done = run("certs", tmp_path / "private", "--client", "bob")
    assert done.stdout.split() == [str(private / "bob.crt"), str(private / "bob.key")]
    assert {name: (private / name).read_bytes() for name in kept} == kept


def test_server_gets_a_new_certificate_of_the_same_authority_when_asked(private: Path, tmp_path: Path):
    authority, server = (private / "ca.crt").read_bytes(), (private / "server.crt").read_bytes()
    for asked in ((), ("--name", "broker.example", "--client", "bob")):
        assert run("certs", tmp_path / "private", *asked).returncode == 0
        assert (private / "ca.crt").read_bytes() == authority
        assert (private / "server.crt").read_bytes() != server
        server = (private / "server.crt").read_bytes()


def test_everything_that_was_made_is_named(tmp_path: Path):
    done = run("certs", tmp_path, "--client", "bob")
    made = [f"{stem}.{end}" for stem in ("ca", "server", "bob") for end in ("crt", "key")]
    assert [Path(line).name for line in done.stdout.split()] == made
    assert {path.name for path in tmp_path.iterdir()} == set(made)


def test_authority_that_has_expired_vouches_for_nobody(tmp_path: Path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2020, 2, 1, tzinfo=UTC)
    )
    (tmp_path / "ca.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (tmp_path / "ca.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    done = run("certs", tmp_path)
    assert done.returncode == 1
    assert "expired on 2020-02-01" in done.stderr
    assert not (tmp_path / "server.crt").exists()


@pytest.mark.parametrize("name", ["../evil", "ca", "server", "a b", ""])
def test_client_names_that_make_bad_files_are_refused(tmp_path: Path, name: str):
    done = run("certs", tmp_path / "private", "--client", name)
    assert done.returncode == 2
    assert not (tmp_path / "private").exists()


def test_pub_and_sub_speak_tls(broker: BrokerProcess, private: Path):
    url = f"mqtts://localhost:{broker.port}/room/1"
    done = run("pub", "-L", url, "-m", "warm", "-r", "--cafile", private / "ca.crt", "-q", 1)
    assert (done.returncode, done.stderr) == (0, "")
    own = ("--cert", private / "alice.crt", "--key", private / "alice.key")
    done = run(
        *("sub", "-h", "localhost", "-p", broker.port, "-t", "room/#", "-C", 1, "--cafile", private / "ca.crt", *own)
    )
    assert (done.returncode, done.stdout) == (0, "warm\n")


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="needs mosquitto_sub")
def test_mosquitto_sub_speaks_tls(broker: BrokerProcess, private: Path):
    url = f"mqtts://localhost:{broker.port}/room/1"
    assert run("pub", "-L", url, "-m", "warm", "-r", "--cafile", private / "ca.crt").returncode == 0
    done = subprocess.run(
        [
            *("mosquitto_sub", "-h", "localhost", "-p", str(broker.port), "--cafile", private / "ca.crt"),
            *("-t", "room/#", "-C", "1", "-W", "60"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "warm\n"), done.stderr


def test_server_that_nobody_vouches_for_is_refused_unless_told(broker: BrokerProcess, private: Path):
    to_broker = ("pub", "-h", "localhost", "-p", broker.port, "-t", "a", "-m", "x")
    done = run(*to_broker, "--tls")
    assert done.returncode == 1
    assert "self-signed certificate" in done.stderr
    assert run(*to_broker, "--insecure").returncode == 0
    done = run(*to_broker)
    assert done.returncode == 1
    assert "closed the connection without answering CONNECT; perhaps it expects TLS" in done.stderr


def test_server_without_tls_is_told_of(private: Path, tmp_path: Path):
    with running_broker(tmp_path, kind="mqttcore") as broker:
        done = run("pub", "-p", broker.port, "-t", "a", "-m", "x", "--cafile", private / "ca.crt")
    assert done.returncode == 1
    assert re.search(r"cannot connect to localhost:\d+: \w+", done.stderr)


def test_name_that_the_certificate_does_not_have_is_refused(private: Path, tmp_path: Path):
    assert run("certs", tmp_path / "private", "--name", "elsewhere.example").returncode == 0
    config = f'[[listeners]]\nport = 0\n[listeners.tls]\ncertificate_file = "{private}/server.crt"\n'
    with running_broker(tmp_path, config + f'key_file = "{private}/server.key"\n', kind="mqttcore") as broker:
        done = run(*("pub", "-h", "localhost", "-p", broker.port, "-t", "a", "-m", "x", "--cafile", private / "ca.crt"))
    assert done.returncode == 1
    assert "Hostname mismatch" in done.stderr


def test_bench_runs_over_tls_and_loses_nothing(broker: BrokerProcess, private: Path):
    to_broker = ("--port", broker.port, "--cafile", private / "ca.crt")
    done = run("bench", "pairs_tls", *to_broker, "--clients", 5, "--count", 2000)
    assert done.returncode == 0, done.stderr
    assert "lost 0, duplicated 0, reordered 0, foreign 0" in done.stdout
    done = run("bench", "connect_tls", *to_broker, "--clients", 5, "--count", 50)
    assert done.returncode == 0, done.stderr
    done = run("bench", "pairs_tls", "--port", broker.port)
    assert done.returncode == 2


def test_sub_and_pub_speak_through_a_unix_socket(tmp_path: Path):
    path = tmp_path / "mqtt.sock"
    config = f'[[listeners]]\nport = 0\n[[listeners]]\nname = "unix"\npath = "{path}"\n'
    (tmp_path / "two.toml").write_text(config)
    with subprocess.Popen(
        [*MQTTCORE, "serve", "--config", str(tmp_path / "two.toml")], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(2)]
            assert lines[1].endswith(f"listening on {path} (mqtt)\n")
            pub = run("pub", "-L", f"unix://{path}", "-t", "a", "-m", "hello", "-r")
            assert (pub.returncode, pub.stderr) == (0, "")
            sub = run("sub", "--unix", path, "-t", "a", "-C", 1)
            assert (sub.returncode, sub.stdout) == (0, "hello\n")
        finally:
            process.terminate()
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--cafile", "nowhere.crt"], "cannot be read"),
        (["--cert", "a.crt"], "--cert and --key belong together"),
        (["-L", "unix://relative"], "not like unix:///"),
    ],
)
def test_wrong_options_are_named(options: list[str], told: str):
    done = run("pub", "-t", "a", "-m", "x", *options)
    assert done.returncode == 2
    assert told in done.stderr
