"""A customer's client that wants its messages in order: it switches that on, waits for the PUBACK, then publishes."""

import sys

import settings
from paho.mqtt import client as mqtt

client_id = f"{settings.GROUP_ID}@@@python3"
waiting = {}
echoes = []


def on_connect(client, userdata, flags, rc):
    print("connected", rc, flush=True)
    if rc:
        sys.exit(1)
    waiting["switch"] = client.publish("$SYS/enableOrderMsg", '{"order":"true"}', qos=1).mid
    client.subscribe(settings.TOPIC, 1)


def on_publish(client, userdata, mid):
    if mid == waiting.pop("switch", None):
        print("ordered", flush=True)
        for number in range(1, 11):
            client.publish(settings.TOPIC, str(number), qos=1)


def on_message(client, userdata, message):
    print(message.topic, message.payload.decode(), flush=True)
    echoes.append(message.topic)
    if len(echoes) == 10:
        client.disconnect()


client = mqtt.Client(client_id, protocol=mqtt.MQTTv311, clean_session=True)
client.on_connect = on_connect
client.on_publish = on_publish
client.on_message = on_message
client.username_pw_set(f"Signature|{settings.ACCESS_KEY}|{settings.INSTANCE_ID}", settings.signature(client_id))
client.connect(settings.ENDPOINT, settings.PORT, 90)
client.loop_forever()
