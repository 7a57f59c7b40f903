"""Sends one message as a device with PyPI's paho-mqtt, and ends when it is acknowledged.

Arguments: host, port, file of the authority, device id, token, body.
"""

import sys

import paho.mqtt.client as mqtt

host, port, authority, device, token, body = sys.argv[1:]

try:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv311)
except AttributeError:  # before 2.0
    client = mqtt.Client(client_id=device, protocol=mqtt.MQTTv311)
client.username_pw_set(f"{host}/{device}/?api-version=2021-04-12", token)
client.tls_set(ca_certs=authority)


def on_connect(client, userdata, flags, reason, *properties):
    if reason != 0:
        sys.exit(f"refused: {reason}")


client.on_connect = on_connect
client.connect(host, int(port))
client.loop_start()
sent = client.publish(f"devices/{device}/messages/events/", body, qos=1)
sent.wait_for_publish(60)
if not sent.is_published():
    sys.exit("no acknowledgement")
client.disconnect()
client.loop_stop()
