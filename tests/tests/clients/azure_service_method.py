"""The service SDK's side of direct methods. Arguments: connection string, CA file, device id.

Does what the lines on standard input say, and says a line for each: `walk` goes through what can become of a call,
`call JSON` makes the call that has these arguments, `end` ends it.
"""

import json
import os
import sys
import time

from shared import say

connection, ca_file, device = sys.argv[1:4]
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import CloudToDeviceMethod  # noqa: E402
from msrest.exceptions import HttpOperationError  # noqa: E402

# "Not now": nobody was asked.
NOT_NOW = (429, 503)

manager = IoTHubRegistryManager.from_connection_string(connection)


def refused(status, device, **call):
    try:
        manager.invoke_device_method(device, CloudToDeviceMethod(**call))
    except HttpOperationError as error:
        assert error.response.status_code == status, error.response.text
        return error.response.headers["iothub-errorcode"]
    raise SystemExit(f"{call} was answered")


def walk():
    for payload in ({"in": [1, 2.5, None]}, "text", 7, None):
        result = manager.invoke_device_method(device, CloudToDeviceMethod(method_name="echo", payload=payload))
        expected = "" if payload is None else payload  # what the SDK sends in its place
        assert (result.status, result.payload) == (200, {"echo": expected}), result.as_dict()
    result = manager.invoke_device_method(device, CloudToDeviceMethod(method_name="unknown"))
    assert result.status == 404, result.as_dict()
    assert refused(504, device, method_name="silent", response_timeout_in_seconds=5) == "GatewayTimeout"
    assert refused(404, "nobody", method_name="echo") == "DeviceNotFound"
    assert refused(404, "offline", method_name="echo") == "DeviceNotOnline"


def call(arguments):
    """Says what came of it. A node that has just lost its neighbour may have no answer for a moment."""
    for _ in range(600):
        try:
            result = manager.invoke_device_method(device, CloudToDeviceMethod(**arguments))
        except HttpOperationError as error:
            status = error.response.status_code
            if status not in NOT_NOW:
                return say("refused", [status, error.response.headers["iothub-errorcode"]])
            time.sleep(0.1)
        else:
            return say("answered", {"status": result.status, "payload": result.payload})
    raise SystemExit("no answer")


say("ready", True)
for line in sys.stdin:
    verb, _, text = line.strip().partition(" ")
    if verb == "walk":
        walk()
        say("walked", True)
    elif verb == "call":
        call(json.loads(text))
    elif verb == "end":
        break
say("ended", True)
