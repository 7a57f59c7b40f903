"""A device that uploads files with the device SDK, and brings them with other programs' clients.

Arguments: connection string, CA file. Does what each line says, in JSON, and says what came of it; "end" ends it.
"""

import http.client
import json
import ssl
import sys
import urllib.parse

from azure.storage.blob import BlobClient

from shared import device_client, say

connection, ca_file = sys.argv[1:3]
client = device_client(connection, ca_file)
trusting = ssl.create_default_context(cafile=ca_file)


def content(size):
    return bytes((n * n + size) % 251 for n in range(size))


def address(info):
    path = urllib.parse.quote("/".join([info["containerName"], info["blobName"]]))
    return "/" + path + info["sasToken"]


def put(order):
    """By an HTTP client that knows nothing of blobs; through any host that has the hub's certificate."""
    info = order["info"]
    connection = http.client.HTTPSConnection(order["host"] or info["hostName"], context=trusting, timeout=60)
    body = order.get("text", "").encode() or content(order["size"])
    headers = {"x-ms-blob-type": "BlockBlob"}
    connection.request("PUT", address(info) + order["query"], body, headers)
    answer = connection.getresponse()
    answer.read()
    say("put", answer.status)


class Paused:
    """A file that waits in the middle until somebody says a line."""

    def __init__(self, size):
        self.content = content(size)
        self.place = 0

    def read(self, size=-1):
        if self.place <= len(self.content) // 2 < self.place + size:
            say("half", True)
            sys.stdin.readline()
        piece = self.content[self.place : self.place + size] if size >= 0 else self.content[self.place :]
        self.place += len(piece)
        return piece


def by_sdk(order):
    """By Azure's client of blobs, in blocks."""
    info = order["info"]
    blob = BlobClient.from_blob_url(
        "https://" + info["hostName"] + address(info),
        connection_verify=ca_file,
        max_single_put_size=64 * 1024,
        max_block_size=256 * 1024,
    )
    answer = blob.upload_blob(Paused(order["size"]), length=order["size"], max_concurrency=1)
    say("uploaded", bool(answer["etag"]))
    try:
        blob.upload_blob(b"other")
        say("again", True)
    except Exception as error:  # The SDK's own, if it is there.
        say("again", type(error).__name__)
    try:
        say("size", blob.get_blob_properties().size)
    except Exception as error:  # A token brings, and shows nothing.
        say("size", type(error).__name__)


client.connect()
say("connected", True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    order = json.loads(line)
    if order["do"] == "begin":
        say("begun", client.get_storage_info_for_blob(order["name"]))
    elif order["do"] == "put":
        put(order)
    elif order["do"] == "sdk":
        by_sdk(order)
    else:
        client.notify_blob_upload_status(order["id"], order["ok"], 200, "as it is")
        say("notified", True)
client.shutdown()
say("ended", True)
