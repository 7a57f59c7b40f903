"""The device SDK's side of a twin: reports, reads, and hears of what a service wants.

Arguments: connection string, CA file. Writes a line for each thing that has happened, and waits for a line
before it goes on.
"""

import json
import sys
import threading

from shared import device_client, say

connection, ca_file = sys.argv[1:3]
client = device_client(connection, ca_file, connection_retry_interval=1)
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
