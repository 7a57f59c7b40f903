"""The device SDK's side of a twin: reports, reads, and hears of what a service wants.

Arguments: connection string, CA file. Writes a line for each thing that has happened, and waits for a line
before it goes on.
"""

import json
import sys
import threading

from azure.iot.device import IoTHubDeviceClient

connection, ca_file = sys.argv[1:3]
with open(ca_file, encoding="utf-8") as file:
    client = IoTHubDeviceClient.create_from_connection_string(
        connection, server_verification_cert=file.read(), connection_retry_interval=1
    )


def say(what, value):
    print(what, json.dumps(value, sort_keys=True), flush=True)


client.connect()
client.on_twin_desired_properties_patch_received = lambda patch: say("desired", patch)
say("twin", client.get_twin())
for line in sys.stdin:
    command, _, text = line.strip().partition(" ")
    if command == "report":
        try:
            client.patch_twin_reported_properties(json.loads(text))
            say("reported", True)
        except Exception as error:  # what the SDK makes of a refusal
            say("refused", type(error).__name__)
    elif command == "twin":
        say("twin", client.get_twin())
    elif command == "end":
        break
client.shutdown()
say("ended", threading.active_count() > 0)
