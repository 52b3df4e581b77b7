"""A customer's client, login by signature: everything is said in on_connect, in one burst; the echoes are counted."""

import sys

import settings
from paho.mqtt import client as mqtt

client_id = f"{settings.GROUP_ID}@@@python1"
peer_topic = f"{settings.TOPIC.partition('/')[0]}/p2p/{client_id}"
echoes = []


def on_connect(client, userdata, flags, rc):
    print("connected", rc, flush=True)
    if rc:
        sys.exit(1)
    client.subscribe(settings.TOPIC, 0)
    for number in range(1, 11):
        client.publish(settings.TOPIC, str(number), qos=0)
    for number in range(1, 11):
        client.publish(peer_topic, f"p2p {number}", qos=0)


def on_message(client, userdata, message):
    print(message.topic, message.payload.decode(), flush=True)
    echoes.append(message.topic)
    if len(echoes) == 20:
        client.disconnect()


client = mqtt.Client(client_id, protocol=mqtt.MQTTv311, clean_session=True)
client.on_connect = on_connect
client.on_message = on_message
client.username_pw_set(f"Signature|{settings.ACCESS_KEY}|{settings.INSTANCE_ID}", settings.signature(client_id))
client.connect(settings.ENDPOINT, settings.PORT, 60)
client.loop_forever()
