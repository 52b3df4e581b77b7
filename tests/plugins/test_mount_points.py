"""Mount points and plugins that name recipients: the P2P plugin knows whole topics."""

from mqttcore_plugins.aliyun.p2p import P2P

from mqttcore import Config, Listener, ReasonCode
from mqttcore.testing import MemoryBroker

CONFIG = Config(
    listeners=[
        Listener(name="acme", port=0, mount_point="acme/"),
        Listener(name="other", port=0, mount_point="other/"),
        Listener(name="ours", port=0),
    ],
    sys_interval_s=0,
)


async def test_p2p_stays_within_a_mount_point():
    async with MemoryBroker(CONFIG, plugins=[P2P(P2P.Config(level=3))]) as broker:
        device = await broker.connect("GID_d@@@1", listener="acme")
        sender = await broker.connect("GID_s@@@1", listener="acme")
        stranger = await broker.connect("GID_x@@@1", listener="other")
        ours = await broker.connect("ours", listener="ours")
        for number in range(2):  # the second time from what was remembered
            await sender.publish("parent/p2p/GID_d@@@1", b"%d" % number, qos=1)
            message = await device.message()
            assert (message.topic, message.payload) == ("parent/p2p/GID_d@@@1", b"%d" % number)
            assert await stranger.publish("parent/p2p/GID_d@@@1", b"no", qos=1) == ReasonCode.NO_MATCHING_SUBSCRIBERS
        await ours.publish("acme/parent/p2p/GID_d@@@1", b"whole", qos=1)
        message = await device.message()
        assert (message.topic, message.payload) == ("parent/p2p/GID_d@@@1", b"whole")
        await device.expect_nothing()
