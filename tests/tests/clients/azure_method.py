"""The device SDK's side of direct methods: answers, and counts what it was asked.

Arguments: connection string, CA file. Writes a line for each call, and waits for a line that ends it.
"""

import sys

from azure.iot.device import MethodResponse

from shared import device_client, say

connection, ca_file = sys.argv[1:3]
client = device_client(connection, ca_file, connection_retry_interval=1)


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
