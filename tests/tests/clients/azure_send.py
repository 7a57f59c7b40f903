"""Sends one message as a device with PyPI's azure-iot-device, unmodified.

Arguments: connection string, file of the authority, body. The SDK dials port 8883, whatever is asked.
"""

import sys

from azure.iot.device import IoTHubDeviceClient, Message

connection_string, authority, body = sys.argv[1:]

with open(authority, encoding="ascii") as file:
    client = IoTHubDeviceClient.create_from_connection_string(
        connection_string, server_verification_cert=file.read()
    )
client.connect()
message = Message(body)
message.custom_properties["sent by"] = "the SDK"
client.send_message(message)
client.shutdown()
