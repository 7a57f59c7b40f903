"""Devices that nobody knows yet, with the provisioning SDK: each registers, connects to the hub that it is told, and
sends.

Arguments: host, id scope, CA file. Reads a line of JSON for each device: its id, and a key or the files of a
certificate; `websockets` if it is to come over those. Writes what it was told, and that it has sent.
"""

import json
import sys

from azure.iot.device import (
    X509,
    IoTHubDeviceClient,
    Message,
    ProvisioningDeviceClient,
)

from shared import say

host, scope, ca_file = sys.argv[1:4]
with open(ca_file, encoding="utf-8") as file:
    ca = file.read()


def provision(wanted):
    common = {
        "provisioning_host": host,
        "registration_id": wanted["id"],
        "id_scope": scope,
        "server_verification_cert": ca,
        "websockets": wanted.get("websockets", False),
    }
    if "key" in wanted:
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            symmetric_key=wanted["key"], **common
        )
    else:
        x509 = X509(wanted["cert"], wanted["cert_key"])
        client = ProvisioningDeviceClient.create_from_x509_certificate(
            x509=x509, **common
        )
    if "payload" in wanted:
        client.provisioning_payload = wanted["payload"]
    return client.register()


def send(wanted, state):
    common = {
        "hostname": state.assigned_hub,
        "device_id": state.device_id,
        "server_verification_cert": ca,
        "websockets": wanted.get("websockets", False),
    }
    if "key" in wanted:
        client = IoTHubDeviceClient.create_from_symmetric_key(
            symmetric_key=wanted["key"], **common
        )
    else:
        x509 = X509(wanted["cert"], wanted["cert_key"])
        client = IoTHubDeviceClient.create_from_x509_certificate(x509=x509, **common)
    client.connect()
    client.send_message(Message(wanted["id"]))
    twin = client.get_twin()
    client.shutdown()
    return twin


for line in sys.stdin:
    if line.strip() == "end":
        break
    wanted = json.loads(line)
    try:
        result = provision(wanted)
    except Exception as error:  # whatever the SDK makes of it
        say("refused", {"error": type(error).__name__, "cause": repr(error.__cause__)})
        continue
    state = result.registration_state
    say(
        "registered",
        {
            "status": result.status,
            "hub": state.assigned_hub,
            "device": state.device_id,
            "substatus": state.sub_status,
        },
    )
    if result.status == "assigned":
        twin = send(wanted, state)
        say("sent", {"desired": twin["desired"]})
say("ended", None)
