"""Calls actions with Alibaba's old core SDK (RPC signature 1.0), as openapi.py does with the new one."""

import importlib
import json
import sys

import settings
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient

client = AcsClient(settings.ACCESS_KEY, settings.SECRET_KEY, "cn-hangzhou", auto_retry=False)

for line in sys.stdin:
    action, parameters = json.loads(line)
    product = "ons.request.v20190214" if action.startswith("OnsMqtt") else "onsmqtt.request.v20200420"
    module = importlib.import_module(f"aliyunsdk{product}.{action}Request")
    request = getattr(module, f"{action}Request")()
    request.set_endpoint(settings.OPENAPI.removeprefix("http://"))
    for name, value in parameters.items():
        getattr(request, f"set_{name}{'s' if isinstance(value, list) else ''}")(value)
    try:
        said = json.loads(client.do_action_with_exception(request))
    except ServerException as error:
        said = {"status": error.http_status, "Code": error.error_code, "Message": error.message}
    print(json.dumps(said), flush=True)
