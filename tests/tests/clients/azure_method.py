"""The device SDK's side of direct methods: answers, and counts what it was asked.

Arguments: connection string, CA file. Writes a line for each call, and waits for a line that ends it.
"""

import json
import sys

from azure.iot.device import IoTHubDeviceClient, MethodResponse

connection, ca_file = sys.argv[1:3]
with open(ca_file, encoding="utf-8") as file:
    client = IoTHubDeviceClient.create_from_connection_string(
        connection, server_verification_cert=file.read(), connection_retry_interval=1
    )


def say(what, value):
    print(what, json.dumps(value, sort_keys=True), flush=True)


def answer(request):
    say("called", {"name": request.name, "payload": request.payload})
    if request.name == "silent":
        return
    status = 404 if request.name == "unknown" else 200
    payload = {"echo": request.payload}
    client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))


client.connect()
client.on_method_request_received = answer
# Only what is subscribed can be called; a twin read tells that the subscription before it is in force.
client.get_twin()
say("listening", True)
for line in sys.stdin:
    if line.strip() == "end":
        break
client.shutdown()
say("ended", True)
