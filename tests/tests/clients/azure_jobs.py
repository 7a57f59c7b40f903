"""Jobs with the service SDK. Arguments: connection string, CA file.

Does what the lines on standard input say, and says a line for each: `twin JOB VALUE`, `method JOB`, `await JOB`,
`cancel JOB`, `later JOB`, `list`, `rows JOB`, `end`.
"""

import datetime
import os
import sys
import time

from shared import asked_again, say

connection, ca_file = sys.argv[1:3]
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import CloudToDeviceMethod, QuerySpecification, Twin, TwinProperties  # noqa: E402
from azure.iot.hub.protocol.models import JobRequest  # noqa: E402
from msrest.exceptions import HttpOperationError  # noqa: E402

jobs = IoTHubJobManager.from_connection_string(connection)
registry = IoTHubRegistryManager.from_connection_string(connection)
LOT = "tags.lot = 'a'"


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def twin_job(job, value, start):
    return JobRequest(
        job_id=job,
        type="scheduleUpdateTwin",
        update_twin=Twin(etag="*", properties=TwinProperties(desired={"firmware": value})),
        query_condition=LOT,
        start_time=start,
        max_execution_time_in_seconds=600,
    )


def ended(job):
    for _ in range(900):
        found = asked_again(lambda: jobs.get_scheduled_job(job))
        if found.status in ("completed", "failed", "cancelled"):
            return {**found.as_dict(), "took_s": (found.end_time - found.created_time).total_seconds()}
        time.sleep(0.1)
    raise SystemExit(f"{found.as_dict()} does not end")


def refused(call):
    try:
        call()
    except HttpOperationError as error:
        return [error.response.status_code, error.response.headers["iothub-errorcode"]]
    raise SystemExit("it was not refused")


say("ready", True)
for line in sys.stdin:
    verb, *rest = line.split()
    if verb == "end":
        break
    if verb == "twin":
        made = jobs.create_scheduled_job(rest[0], twin_job(rest[0], int(rest[1]), now()))
        say("made", made.as_dict())
    elif verb == "method":
        method = CloudToDeviceMethod(
            method_name="echo", payload={"in": 5}, response_timeout_in_seconds=30, connect_timeout_in_seconds=0
        )
        request = JobRequest(
            job_id=rest[0],
            type="scheduleDeviceMethod",
            cloud_to_device_method=method,
            query_condition="deviceId IN ['sdk', 'offline']",
            start_time=now(),
            max_execution_time_in_seconds=600,
        )
        say("made", asked_again(lambda: jobs.create_scheduled_job(rest[0], request)).as_dict())
    elif verb == "await":
        say("ended", ended(rest[0]))
    elif verb == "later":
        request = twin_job(rest[0], 0, now() + datetime.timedelta(days=1))
        say("made", asked_again(lambda: jobs.create_scheduled_job(rest[0], request)).as_dict())
        request.query_condition = "*"
        say("refused", refused(lambda: jobs.create_scheduled_job(rest[0], request)))
    elif verb == "cancel":
        say("cancelled", asked_again(lambda: jobs.cancel_scheduled_job(rest[0])).as_dict())
        say("refused", refused(lambda: jobs.cancel_scheduled_job("nobody")))
    elif verb == "list":
        found = asked_again(lambda: jobs.query_scheduled_jobs("scheduleUpdateTwin", "cancelled"))
        say("listed", [item["jobId"] for item in found.items])
    elif verb == "rows":
        query = QuerySpecification(query=f"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{rest[0]}'")
        found = asked_again(lambda: registry.query_iot_hub(query, None, 500))
        rows = [[row.device_id, row.status, row.additional_properties.get("outcome")] for row in found.items]
        say("rows", sorted(rows, key=lambda row: row[0]))
say("ended", True)
