"""What a customer fills in: where the service is, and with which keys. From the environment, as it would be."""

import base64
import hashlib
import hmac
import os

ENDPOINT = os.environ["MQTT_ENDPOINT"]
PORT = int(os.environ["MQTT_PORT"])
TOKEN_SERVER = os.environ.get("MQTT_TOKEN_SERVER", "")
OPENAPI = os.environ.get("MQTT_OPENAPI", "")
INSTANCE_ID = os.environ["MQTT_INSTANCE_ID"]
ACCESS_KEY = os.environ["MQTT_ACCESS_KEY"]
SECRET_KEY = os.environ["MQTT_SECRET_KEY"]
GROUP_ID = os.environ["MQTT_GROUP_ID"]
TOPIC = os.environ["MQTT_TOPIC"]


def signature(text):
    digest = hmac.new(SECRET_KEY.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()
