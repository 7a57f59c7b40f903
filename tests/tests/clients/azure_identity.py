"""A module, or a device with a certificate, as the device SDK knows them.

Arguments: CA file, then `module` and a connection string, or `x509` and hub, device, certificate file, key file.
Writes a line for each thing that has happened, and waits for a line before it goes on.
"""

import sys

from azure.iot.device import X509, IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse

from shared import say

ca_file, kind = sys.argv[1:3]
with open(ca_file, encoding="utf-8") as file:
    trusted = file.read()
if kind == "module":
    client = IoTHubModuleClient.create_from_connection_string(sys.argv[3], server_verification_cert=trusted)
else:
    hub, device, certificate, key = sys.argv[3:7]
    client = IoTHubDeviceClient.create_from_x509_certificate(
        X509(certificate, key), hub, device, server_verification_cert=trusted
    )


def answer(request):
    say("called", request.payload)
    client.send_method_response(MethodResponse.create_from_method_request(request, 200, request.payload))


client.connect()
client.on_method_request_received = answer
client.patch_twin_reported_properties({"kind": kind})
say("twin", client.get_twin())
for line in sys.stdin:
    command, _, text = line.strip().partition(" ")
    if command == "send":
        client.send_message(Message(text))
        say("sent", text)
    elif command == "end":
        break
client.shutdown()
say("ended", True)
