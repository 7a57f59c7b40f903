"""Receives feedback on cloud-to-device messages over AMQP, with the AMQP client of the service SDK.

Arguments: connection string, CA file, number of records, and what else to receive (filenotifications). Writes a line for each record, and settles each batch.
"""

import base64
import hashlib
import hmac
import json
import sys
import tempfile
import time
import urllib.parse

import certifi

connection, ca_file, count = sys.argv[1:4]
what = sys.argv[4] if len(sys.argv) > 4 else "feedback"
with open(ca_file, encoding="utf-8") as file:
    authority = file.read()
with open(certifi.where(), encoding="utf-8") as file:
    bundle = file.read()
trusted = tempfile.NamedTemporaryFile("w", suffix=".pem")
trusted.write(bundle + "\n" + authority)
trusted.flush()
certifi.where = lambda: trusted.name

import uamqp  # noqa: E402: it must find the bundle above
from azure.core.credentials import AccessToken  # noqa: E402

parts = dict(part.split("=", 1) for part in connection.split(";"))
host = parts["HostName"]


def token():
    expiry = int(time.time() + 3600)
    key = base64.b64decode(parts["SharedAccessKey"])
    signature = base64.b64encode(hmac.digest(key, f"{host}\n{expiry}".encode(), hashlib.sha256))
    text = "SharedAccessSignature sr={}&sig={}&se={}&skn={}".format(
        host, urllib.parse.quote(signature, safe=""), expiry, parts["SharedAccessKeyName"]
    )
    return AccessToken(text, expiry)


address = "https://" + host
auth = uamqp.authentication.JWTTokenAuth(
    audience=address, uri=address, get_token=token, token_type=b"servicebus.windows.net:sastoken"
)
auth.update_token()
source = "amqps://" + host + "/messages/serviceBound/" + what
client = uamqp.ReceiveClient(
    source,
    auth=auth,
    prefetch=4,
    auto_complete=False,
    receive_settle_mode=uamqp.constants.ReceiverSettleMode.PeekLock,
)
seen = 0
while seen < int(count):
    for message in client.receive_message_batch(max_batch_size=4, timeout=1000):
        records = json.loads(b"".join(message.get_data()))
        # A file's notification comes alone.
        for record in records if isinstance(records, list) else [records]:
            print(json.dumps(record, sort_keys=True), flush=True)
            seen += 1
        message.accept()
# The connection must carry the last word before it ends.
client.receive_message_batch(max_batch_size=1, timeout=500)
client.close()
