"""The service SDK's side of cloud-to-device messages, which it sends over AMQP.

Arguments: connection string, CA file, device. Sends a message for each line that it reads, a JSON object with `data` and
`properties`, and says what came of it.
"""

import json
import os
import sys
import tempfile

import certifi

connection, ca_file, device = sys.argv[1:4]
# The SDK's AMQP trusts certifi's bundle and nothing else.
with open(ca_file, encoding="utf-8") as file:
    authority = file.read()
with open(certifi.where(), encoding="utf-8") as file:
    bundle = file.read()
trusted = tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False)
trusted.write(bundle + "\n" + authority)
trusted.close()
certifi.where = lambda: trusted.name

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402: it must find the bundle above


def say(what, value):
    print(what, json.dumps(value, sort_keys=True), flush=True)


manager = IoTHubRegistryManager.from_connection_string(connection)
say("ready", True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    message = json.loads(line)
    try:
        manager.send_c2d_message(message.get("to", device), message["data"], properties=message["properties"])
        say("sent", True)
    except Exception as error:  # what the SDK makes of a refusal
        say("refused", str(error))
os.unlink(trusted.name)
say("ended", True)
