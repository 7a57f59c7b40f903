"""The service SDK's side of cloud-to-device messages, which it sends over AMQP.

Arguments: connection string, CA file, device. Sends a message for each line that it reads, a JSON object with `data`
and `properties`, and says what came of it: how many managers it has had by then, or why the message was refused.
"""

import json
import os
import sys
import tempfile
import time

import certifi

from shared import say

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
from uamqp.errors import AMQPError  # noqa: E402


class Service:
    def __init__(self):
        self.managers = 0
        self.connect()

    def connect(self):
        self.manager = IoTHubRegistryManager.from_connection_string(connection)
        self.managers += 1

    def send(self, message):
        """The SDK does not mend a connection that is lost: a new manager has a new one."""
        to = message.get("to", device)
        for _ in range(600):
            try:
                self.manager.send_c2d_message(to, message["data"], properties=message["properties"])
                return
            except AMQPError:
                time.sleep(0.1)
                self.connect()
        raise SystemExit("no connection")


service = Service()
say("ready", True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    try:
        service.send(json.loads(line))
        say("sent", service.managers)
    except Exception as error:  # what the SDK makes of a refusal
        say("refused", str(error))
os.unlink(trusted.name)
say("ended", True)
