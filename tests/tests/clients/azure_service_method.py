"""The service SDK's side of direct methods. Arguments: connection string, CA file, device id."""

import os
import sys

connection, ca_file, device = sys.argv[1:4]
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import CloudToDeviceMethod  # noqa: E402
from msrest.exceptions import HttpOperationError  # noqa: E402

manager = IoTHubRegistryManager.from_connection_string(connection)


def refused(status, device, **call):
    try:
        manager.invoke_device_method(device, CloudToDeviceMethod(**call))
    except HttpOperationError as error:
        assert error.response.status_code == status, error.response.text
        return error.response.headers["iothub-errorcode"]
    raise SystemExit(f"{call} was answered")


for payload in ({"in": [1, 2.5, None]}, "text", 7, None):
    result = manager.invoke_device_method(device, CloudToDeviceMethod(method_name="echo", payload=payload))
    expected = "" if payload is None else payload  # what the SDK sends in its place
    assert (result.status, result.payload) == (200, {"echo": expected}), result.as_dict()
result = manager.invoke_device_method(device, CloudToDeviceMethod(method_name="unknown"))
assert result.status == 404, result.as_dict()
assert refused(504, device, method_name="silent", response_timeout_in_seconds=5) == "GatewayTimeout"
assert refused(404, "nobody", method_name="echo") == "DeviceNotFound"
assert refused(404, "offline", method_name="echo") == "DeviceNotOnline"
print("called")
