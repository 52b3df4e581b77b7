"""A broker for `pairs_p2p`: what is published to bench/p2p/CLIENT goes to that client, whatever it subscribed to."""

import asyncio

import uvloop

from mqttcore import Broker, ClientView, Config, Listener, Message, Recipients, TopicHandler


def recipients(client: ClientView, message: Message) -> Recipients:
    """Return the client whose id is the topic's last level."""
    return Recipients((message.topic.rpartition("/")[2],), is_fixed=True)


async def serve() -> None:
    """Serve until the process is ended."""
    async with Broker(Config(listeners=[Listener(port=0)])) as broker:
        broker.add_handler(TopicHandler("bench/p2p/+", recipients))
        _, host, port = broker.addresses[0]
        print(f"p2p broker listening on {host}:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
