"""Queries with the service SDK. Arguments: connection string, CA file, how many devices `q-N` there are.

Says a line for each step and waits for one on standard input before the next.
"""

import os
import sys

connection, ca_file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties  # noqa: E402
from msrest.exceptions import HttpOperationError  # noqa: E402

manager = IoTHubRegistryManager.from_connection_string(connection)


def ask(query, page=None):
    """All rows, page by page."""
    rows, continuation, pages = [], None, 0
    while True:
        result = manager.query_iot_hub(QuerySpecification(query=query), continuation, page)
        assert page is None or len(result.items) <= page, len(result.items)
        rows.extend(result.items)
        continuation, pages = result.continuation_token, pages + 1
        if not continuation:
            return rows, pages


def all_are_found(floors):
    """Every device is found once, whole and by what its twin says."""
    rows, pages = ask("SELECT * FROM devices WHERE STARTSWITH(deviceId, 'q-')", 7)
    found = sorted(twin.device_id for twin in rows)
    assert found == sorted(f"q-{number}" for number in range(count)), found
    assert pages >= count // 7, pages
    assert all(twin.properties.desired["$version"] == 2 for twin in rows)
    for floor in range(floors):
        rows, _ = ask(f"SELECT deviceId, tags.floor AS floor FROM devices WHERE tags.floor = {floor}")
        wanted = sorted(f"q-{number}" for number in range(count) if number % floors == floor)
        assert sorted(row.device_id for row in rows) == wanted, rows
        assert all(row.additional_properties["floor"] == floor for row in rows)
    rows, _ = ask("SELECT tags.floor AS floor, COUNT() AS n FROM devices WHERE IS_DEFINED(tags.floor) GROUP BY tags.floor")
    groups = {row.additional_properties["floor"]: row.additional_properties["n"] for row in rows}
    assert sum(groups.values()) == count and len(groups) == floors, groups


for number in range(count):
    twin = Twin(tags={"floor": number % 3}, properties=TwinProperties(desired={"interval": number}))
    manager.update_twin(f"q-{number}", twin)
    # What was answered is seen by the next query.
    rows, _ = ask(f"SELECT deviceId FROM devices WHERE properties.desired.interval = {number}")
    assert [row.device_id for row in rows] == [f"q-{number}"], rows
all_are_found(3)
try:
    ask("SELECT * FROM devices WHERE")
    raise SystemExit("a query without a condition was taken")
except HttpOperationError as error:
    assert error.response.status_code == 400, error.response.status_code
print("ready null", flush=True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    all_are_found(3)
    print("found null", flush=True)
print("ended null", flush=True)
