"""Configurations with the service SDK. Arguments: connection string, CA file, how many devices `c-N` there are.

Says a line for each step and waits for one on standard input before the next.
"""

import os
import sys
import time

connection, ca_file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import (  # noqa: E402
    Configuration,
    ConfigurationContent,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
    Twin,
)
from msrest.exceptions import HttpOperationError  # noqa: E402

registry = IoTHubRegistryManager.from_connection_string(connection)
configurations = IoTHubConfigurationManager.from_connection_string(connection)


def make(name, fps, condition, priority):
    configuration = Configuration(
        id=name,
        content=ConfigurationContent(device_content={"properties.desired.fps": fps}),
        target_condition=condition,
        priority=priority,
        metrics=ConfigurationMetrics(
            queries={"done": f"SELECT deviceId FROM devices WHERE properties.desired.fps = {fps}"}
        ),
    )
    made = configurations.create_configuration(configuration)
    assert made.id == name and made.etag and made.priority == priority, made.as_dict()
    return made


def wait_for(name, targeted, applied):
    """Waits until so many devices are."""
    for _ in range(600):
        seen = configurations.get_configuration(name)
        results = seen.system_metrics.results
        if (results["targetedCount"], results["appliedCount"]) == (targeted, applied):
            assert seen.metrics.results["done"] == applied, seen.metrics.as_dict()
            return
        time.sleep(0.1)
    raise SystemExit(f"{name}: {results}")


trial = configurations.test_configuration_queries(
    ConfigurationQueriesTestInput(target_condition="tags.floor =", custom_metric_queries={})
)
assert "at character" in trial.target_condition_error, trial.as_dict()
for number in range(count):
    registry.update_twin(f"c-{number}", Twin(tags={"floor": number % 2}))
low = make("low", 5, "tags.floor = 1", 1)
wait_for("low", count // 2, count // 2)
try:
    make("low", 5, "*", 1)
    raise SystemExit("it was made twice")
except HttpOperationError as error:
    assert error.response.status_code == 409, error.response.status_code
print("ready null", flush=True)

for line in sys.stdin:
    word = line.strip()
    if word == "high":
        make("high", 9, "deviceId = 'c-1'", 2)
        wait_for("high", 1, 1)
        wait_for("low", count // 2, count // 2 - 1)
        assert registry.get_twin("c-1").properties.desired["fps"] == 9
    elif word == "all":
        low.target_condition = "IS_DEFINED(tags.floor)"
        low.priority = 3
        configurations.update_configuration(low, low.etag)
        wait_for("low", count, count)
    elif word == "end":
        break
    print("done null", flush=True)

names = sorted(configuration.id for configuration in configurations.get_configurations(20))
assert names == ["high", "low"], names
for name in names:
    configurations.delete_configuration(name)
assert configurations.get_configurations() == []
print("ended null", flush=True)
