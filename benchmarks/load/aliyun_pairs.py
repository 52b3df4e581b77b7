"""What `pairs` costs with the Alibaba profile on, beside a bare broker: CPU time a message.

    python benchmarks/load/aliyun_pairs.py [--rounds 5] [--seconds 3]

The generator has no user name, so it is put in on the broker's side; from then on every message goes the way of one of
a client that logged in, with rights, quotas and P2P. Rounds go A B, B A. Prints one line of CSV a round. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from typing import Any

from mqttcore import Broker, Config, Listener, hookimpl


class Everybody:
    """Makes the custom identity as which every client is logged in."""

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        """Make the identity."""
        from mqttcore_plugins.aliyun.records import CustomPermission

        self.auth: Any = broker.plugins["aliyun_auth"]
        custom = self.auth.registry.custom
        await custom.add_identity("mqtt-xxxxx", "USER", "bench", "secret")
        for topic in ("p/#", "bench/#", "b/#"):
            await custom.put_permission(
                CustomPermission(
                    instance_id="mqtt-xxxxx",
                    identity="bench",
                    identity_type="USER",
                    topic=topic,
                    permit_action="PUB_SUB",
                    effect="ALLOW",
                )
            )


def serve(with_profile: bool) -> None:
    async def run() -> None:
        listeners = [Listener(port=0)]
        if not with_profile:
            broker = Broker(Config(listeners=listeners, sys_interval_s=0))
        else:
            table = {"instances": [{"id": "mqtt-xxxxx"}], "auto_create_topics": True, "subscriptions_maximum": 10_000}
            plugins = {"aliyun_auth": table, "p2p": {}, "ordered": {}}
            everybody = Everybody()
            broker = Broker(Config(listeners=listeners, sys_interval_s=0, plugins=plugins), plugins=[everybody])
        async with broker:
            if with_profile:
                signed_in(broker)
            print(broker.addresses[0][2], flush=True)
            await asyncio.Event().wait()

    asyncio.run(run())


def signed_in(broker: Broker) -> None:
    """Have the gate see the custom identity's user name and password in every CONNECT without a user name."""
    gate = broker.plugins["aliyun_auth"]._gate  # type: ignore[attr-defined]
    judge, put_in = gate.judge, {"user_name": "bench", "password": b"secret"}
    gate.judge = lambda **given: judge(**(given | put_in if given["user_name"] is None else given))


def measure(with_profile: bool, seconds: float) -> float:
    command = [sys.executable, __file__, "--serve", "profile" if with_profile else "bare"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        try:
            assert broker.stdout is not None
            port = broker.stdout.readline().strip()
            bench = [sys.executable, "-m", "mqttcore", "bench", "pairs", "--port", port, "--json"]
            bench += ["--broker-pid", str(broker.pid), "--duration", str(seconds)]
            done = subprocess.run(bench, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
            return float(json.loads(done.stdout)["broker_cpu_us"])
        finally:
            broker.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--serve", choices=("bare", "profile"))
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve == "profile")
    print("bare_us,profile_us,ratio")
    for number in range(arguments.rounds):
        order = (False, True) if number % 2 == 0 else (True, False)
        figures = {with_profile: measure(with_profile, arguments.seconds) for with_profile in order}
        print(f"{figures[False]:.2f},{figures[True]:.2f},{figures[True] / figures[False]:.3f}", flush=True)
    return None


if __name__ == "__main__":
    main()
