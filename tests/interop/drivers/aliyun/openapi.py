"""Calls actions with Alibaba's SDK: a JSON list [action, parameters] a line in, a JSON object a line out."""

import json
import re
import sys

import settings
from alibabacloud_onsmqtt20200420 import models
from alibabacloud_onsmqtt20200420.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.models import Config

client = Client(
    Config(
        access_key_id=settings.ACCESS_KEY,
        access_key_secret=settings.SECRET_KEY,
        endpoint=settings.OPENAPI.removeprefix("http://"),
        protocol="http",
    )
)

for line in sys.stdin:
    action, parameters = json.loads(line)
    method = getattr(client, re.sub(r"(?<!^)(?=[A-Z])", "_", action).lower())
    request = getattr(models, f"{action}Request")().from_map(parameters)
    try:
        said = method(request).body.to_map()
    except ClientException as error:
        said = {"status": error.status_code, "Code": error.code, "Message": error.message}
    print(json.dumps(said), flush=True)
