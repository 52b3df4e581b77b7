"""A customer's client, login by token: it applies for one over HTTP, then talks to its topic and to itself."""

import json
import sys
import time
import urllib.parse
import urllib.request

import settings
from paho.mqtt import client as mqtt

client_id = f"{settings.GROUP_ID}@@@python2"
peer_topic = f"{settings.TOPIC.partition('/')[0]}/p2p/{client_id}"
echoes = []


def apply_token():
    signed = {
        "actions": "R,W",
        # a time where a duration belongs, as it is widely copied: about the year 2080
        "expireTime": str(int(time.time() * 1000) + int(time.time() * 1000) + 86_400_000),
        "instanceId": settings.INSTANCE_ID,
        "resources": settings.TOPIC,
        "serviceName": "mq",
    }
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    form = dict(signed)
    form.update(proxyType="MQTT", accessKey=settings.ACCESS_KEY, signature=settings.signature(text))
    with urllib.request.urlopen(
        f"{settings.TOKEN_SERVER}/token/apply", urllib.parse.urlencode(form).encode(), timeout=60
    ) as answer:
        said = json.load(answer)
    print("token", said["code"], said["message"], flush=True)
    return said["tokenData"]


def on_connect(client, userdata, flags, rc):
    print("connected", rc, flush=True)
    if rc:
        sys.exit(1)
    client.subscribe(settings.TOPIC, 0)
    for number in range(1, 11):
        client.publish(settings.TOPIC, str(number), qos=0)
        client.publish(peer_topic, f"p2p {number}", qos=0)


def on_message(client, userdata, message):
    print(message.topic, message.payload.decode(), flush=True)
    echoes.append(message.topic)
    if len(echoes) == 20:
        client.disconnect()


client = mqtt.Client(client_id, protocol=mqtt.MQTTv311, clean_session=True)
client.on_connect = on_connect
client.on_message = on_message
client.username_pw_set(f"Token|{settings.ACCESS_KEY}|{settings.INSTANCE_ID}", "RW|" + apply_token())
client.connect(settings.ENDPOINT, settings.PORT, 90)
client.loop_forever()
