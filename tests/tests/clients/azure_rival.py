"""One of two devices that have the same identity, with the device SDK: each connection throws the other's out.

Arguments: connection string, CA file. Says when a connection was lost, and when: seconds of the machine's clock that
never jumps. `send TEXT` sends as soon as there is a connection; `end` ends it.
"""

import sys
import time

from azure.iot.device import Message, exceptions

from shared import device_client, say

PAUSE_S = 0.02
# What the SDK raises while it has no connection.
PASSING = (
    exceptions.ConnectionFailedError,
    exceptions.ConnectionDroppedError,
    exceptions.NoConnectionError,
    exceptions.OperationCancelled,
)

connection, ca_file = sys.argv[1:3]
client = device_client(connection, ca_file, connection_retry_interval=1)


def lost(error):
    say("lost", {"error": type(error).__name__, "at_s": time.monotonic()})


def send(text):
    while True:
        # The SDK connects again by itself, or never.
        while not client.connected:
            time.sleep(PAUSE_S)
        try:
            client.send_message(Message(text))
            return
        except PASSING:
            pass


client.on_background_exception = lost
client.connect()
say("connected", True)
for line in sys.stdin:
    verb, _, text = line.strip().partition(" ")
    if verb == "send":
        send(text)
        say("sent", text)
    elif verb == "end":
        break
client.shutdown()
say("ended", True)
