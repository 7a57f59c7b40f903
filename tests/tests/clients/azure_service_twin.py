"""The service SDK's side of a twin. Arguments: connection string, CA file, device id.

Does what the lines on standard input say, and says a line for each: `walk` goes through what a service may do to the
twin of a new device, `look` reads it, `patch JSON` merges into what is desired if the twin is still the one that was
seen last, `end` ends it.
"""

import json
import os
import sys

from shared import asked_again, say

connection, ca_file, device = sys.argv[1:4]
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import Twin, TwinProperties  # noqa: E402
from msrest.exceptions import HttpOperationError  # noqa: E402

manager = IoTHubRegistryManager.from_connection_string(connection)


def look():
    return asked_again(lambda: manager.get_twin(device))


def desired(wanted, **more):
    return Twin(properties=TwinProperties(desired=wanted), **more)


def must_be_stale(etag):
    try:
        manager.update_twin(device, Twin(tags={"never": True}), etag)
    except HttpOperationError as error:
        assert error.response.status_code == 412, error.response.text
        return
    raise SystemExit("a stale etag was taken")


def walk():
    twin = look()
    assert twin.device_id == device and twin.version == 1, twin.as_dict()
    first = twin.etag
    twin = manager.update_twin(device, desired({"interval": 5, "mode": {"night": True}}, tags={"room": 7}), first)
    assert twin.tags == {"room": 7}, twin.tags
    assert twin.properties.desired["interval"] == 5
    assert twin.properties.desired["$version"] == 2
    assert "$lastUpdated" in twin.properties.desired["$metadata"]["mode"]["night"]
    must_be_stale(first)
    twin = manager.replace_twin(device, desired({"interval": 9}, tags={"floor": 1}), "*")
    assert twin.tags == {"floor": 1} and twin.properties.desired["$version"] == 3, twin.as_dict()
    assert "mode" not in twin.properties.desired, twin.properties.desired
    return twin


def plain(section):
    return {key: value for key, value in section.items() if key != "$metadata"}


def shown(twin):
    return {
        "tags": twin.tags,
        "desired": plain(twin.properties.desired),
        "reported": plain(twin.properties.reported),
        "connected": twin.connection_state == "Connected",
    }


seen = None
say("ready", True)
for line in sys.stdin:
    verb, _, text = line.strip().partition(" ")
    if verb == "walk":
        seen = walk()
        say("walked", shown(seen))
    elif verb == "look":
        seen = look()
        say("looked", shown(seen))
    elif verb == "patch":
        before = seen.etag
        # From here on its shard has a leader.
        look()
        seen = manager.update_twin(device, desired(json.loads(text)), before)
        must_be_stale(before)
        say("patched", shown(seen))
    elif verb == "end":
        break
say("ended", True)
