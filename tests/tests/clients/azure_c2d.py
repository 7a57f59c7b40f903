"""The device SDK's side of cloud-to-device messages: says what comes.

Arguments: connection string, CA file. Writes a line for each message, and waits for a line that ends it.
"""

import sys

from shared import device_client, say

connection, ca_file = sys.argv[1:3]
client = device_client(connection, ca_file, connection_retry_interval=1)


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
