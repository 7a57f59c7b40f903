"""The device SDK's side of cloud-to-device messages: says what comes.

Arguments: connection string, CA file. Writes a line for each message, and waits for a line that ends it.
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


# The SDK hands messages to several threads at once.
lock = threading.Lock()


def say(what, value):
    with lock:
        print(what, json.dumps(value, sort_keys=True), flush=True)


def receive(message):
    say(
        "message",
        {
            "id": message.message_id,
            "data": message.data.decode(),
            "properties": message.custom_properties,
            "type": message.content_type,
            "ack": message.ack,
        },
    )


client.connect()
client.on_message_received = receive
# A twin read tells that the subscription before it is in force.
client.get_twin()
say("listening", True)
for line in sys.stdin:
    if line.strip() == "end":
        break
client.shutdown()
say("ended", True)
