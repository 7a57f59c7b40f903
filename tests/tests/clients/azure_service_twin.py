"""The service SDK's side of a twin. Arguments: connection string, CA file, device id."""

import os
import sys

connection, ca_file, device = sys.argv[1:4]
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import Twin, TwinProperties  # noqa: E402
from msrest.exceptions import HttpOperationError  # noqa: E402

manager = IoTHubRegistryManager.from_connection_string(connection)
twin = manager.get_twin(device)
assert twin.device_id == device and twin.version == 1, twin.as_dict()
first = twin.etag
patch = Twin(tags={"room": 7}, properties=TwinProperties(desired={"interval": 5, "mode": {"night": True}}))
twin = manager.update_twin(device, patch, first)
assert twin.tags == {"room": 7}, twin.tags
assert twin.properties.desired["interval"] == 5
assert twin.properties.desired["$version"] == 2
assert "$lastUpdated" in twin.properties.desired["$metadata"]["mode"]["night"]
try:
    manager.update_twin(device, patch, first)
    raise SystemExit("a stale etag was taken")
except HttpOperationError as error:
    assert error.response.status_code == 412, error.response.status_code
twin = manager.replace_twin(device, Twin(tags={"floor": 1}, properties=TwinProperties(desired={"interval": 9})), "*")
assert twin.tags == {"floor": 1} and twin.properties.desired["$version"] == 3, twin.as_dict()
assert "mode" not in twin.properties.desired, twin.properties.desired
print("reported", twin.properties.reported.get("firmware"))
