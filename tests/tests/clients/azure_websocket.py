"""A device over WebSocket with the device SDK, which dials port 443: sends, receives messages, answers methods.

Arguments: connection string, CA file. Writes a line for each thing that has happened, and sends what `send` is followed
by; `end` ends it.
"""

import sys

from azure.iot.device import Message, MethodResponse

from shared import device_client, say

connection, ca_file = sys.argv[1:3]
client = device_client(connection, ca_file, websockets=True, connection_retry_interval=1)


def answer(request):
    say("called", request.payload)
    client.send_method_response(MethodResponse.create_from_method_request(request, 200, request.payload))


client.on_background_exception = lambda error: say("lost", {"error": type(error).__name__})
client.connect()
client.on_message_received = lambda message: say("message", message.data.decode())
client.on_method_request_received = answer
# A twin read tells that the subscriptions before it are in force.
client.get_twin()
say("listening", True)
for line in sys.stdin:
    verb, _, text = line.strip().partition(" ")
    if verb == "send":
        client.send_message(Message(text))
        say("sent", text)
    elif verb == "end":
        break
client.shutdown()
say("ended", True)
