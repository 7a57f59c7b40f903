"""A device that publishes through a cluster of containers while some of them are killed.

Started by `.ci/compose`, with the name of the compose project. The device is paho-mqtt on this machine
and comes through published ports. Ends with an error unless every message that was acknowledged is
read back, in the order in which it was sent.
"""

import base64
import hashlib
import hmac
import json
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from io import BytesIO

import paho.mqtt.client as mqtt

PROJECT = sys.argv[1]
DEVICE = "walk-1"
# How long anything may take that must happen; whatever takes longer has failed.
PATIENCE_S = 90
# Messages without an acknowledgement at a time.
WINDOW = 16
# Acknowledgements that must come between two disturbances.
STEP = 150


def fail(why):
    sys.exit(f"error: {why}")


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def eventually(what, look):
    """Asks until the answer is true, and returns it."""
    until = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            fail(f"after {PATIENCE_S} s still not: {what}")
        time.sleep(0.2)


def containers(service):
    labels = [f"label=com.docker.compose.project={PROJECT}", f"label=com.docker.compose.service={service}"]
    found = run("docker", "ps", "-a", "--format", "{{.Names}}", *(f"--filter={label}" for label in labels))
    return sorted(found.split())


def is_healthy(container):
    return run("docker", "inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"


def wait_healthy(names):
    for name in names:
        eventually(f"{name} healthy", lambda: is_healthy(name))


def published(container, port):
    """The port of this machine that leads to the container's."""
    return int(run("docker", "port", container, f"{port}/tcp").splitlines()[0].rsplit(":", 1)[1])


def file_of(container, path):
    tar = subprocess.run(["docker", "cp", f"{container}:{path}", "-"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(tar)) as archive:
        return archive.extractfile(archive.getmembers()[0]).read()


def token(key):
    """A shared access token of the device, good for an hour."""
    resource = urllib.parse.quote(f"localhost/devices/{DEVICE}", safe="")
    until = int(time.time()) + 3600
    mac = hmac.new(base64.b64decode(key), f"{resource}\n{until}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(mac), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={until}"


class Device:
    """Publishes numbered messages without pause. What is not acknowledged when its gateway dies it sends
    again through the next, before anything new, as a device should."""

    def __init__(self, gateways, key, ca_file):
        self.gateways, self.key, self.ca_file = gateways, key, ca_file
        # Numbers in the order in which they were acknowledged, and how many were drawn.
        self.acked, self.sent = [], 0
        self.connects = 0
        self.is_ending = False
        self.thread = threading.Thread(target=self.live, daemon=True)
        self.thread.start()

    def live(self):
        unacked = deque()
        while unacked or not self.is_ending:
            for port in self.gateways:
                unacked = self.publish(port, unacked)
            time.sleep(0.1)

    def connect(self, port, lost):
        """A client that has been let in, or none."""
        # Version 2 of paho-mqtt wants to know which of its interfaces is meant.
        version = getattr(mqtt, "CallbackAPIVersion", None)
        arguments = {"callback_api_version": version.VERSION1} if version else {}
        client = mqtt.Client(client_id=DEVICE, protocol=mqtt.MQTTv311, reconnect_on_failure=False, **arguments)
        client.username_pw_set(f"localhost/{DEVICE}/?api-version=2021-04-12", token(self.key))
        client.tls_set(self.ca_file)
        client.max_inflight_messages_set(WINDOW)
        joined = threading.Event()
        client.on_connect = lambda _client, _data, _flags, code: (lost if code else joined).set()
        client.on_disconnect = lambda *_: lost.set()
        try:
            client.connect("localhost", port, keepalive=10)
        except OSError:
            return None
        client.loop_start()
        while not joined.wait(0.05) and not lost.is_set():
            pass
        return client if joined.is_set() else None

    def publish(self, port, unacked):
        """Publishes at one gateway until the connection is lost or the end has come; returns what was
        not acknowledged."""
        lost = threading.Event()
        client = self.connect(port, lost)
        if client is None:
            return unacked
        self.connects += 1
        flying = deque()
        while True:
            # Acknowledgements come in the order of the messages.
            while flying and flying[0][1].is_published():
                self.acked.append(flying.popleft()[0])
            if lost.is_set():
                break
            if len(flying) < WINDOW and (unacked or not self.is_ending):
                if unacked:
                    number = unacked.popleft()
                else:
                    number, self.sent = self.sent, self.sent + 1
                flying.append((number, client.publish(f"devices/{DEVICE}/messages/events/", f"{number}", qos=1)))
            elif flying:
                time.sleep(0.001)
            else:
                break
        client.disconnect()
        client.loop_stop()
        return deque([number for number, _ in flying] + list(unacked))

    def wait_acked(self, more):
        target = len(self.acked) + more
        eventually(f"{more} more messages acknowledged", lambda: len(self.acked) >= target)

    def end(self):
        self.is_ending = True
        self.thread.join(PATIENCE_S)
        if self.thread.is_alive():
            fail("the device does not come to an end")


def read_back(gateway, ca_file):
    """The numbers of the device's messages as the hub has them, in order."""
    ready = json.loads(file_of(gateway, "/var/lib/dunlin/dunlin-data/endpoint.json"))
    trust = ssl.create_default_context(cafile=ca_file)
    base = f"https://localhost:{published(gateway, 8443)}"

    def get(path):
        request = urllib.request.Request(base + path, headers={"Authorization": f"Bearer {ready['admin_token']}"})
        with urllib.request.urlopen(request, context=trust, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    numbers = []
    for shard in get("/shards")["shards"]:
        place = 0
        while place < shard["end"]:
            page = get(f"/events/{shard['shard']}?from={place}&max=1000")
            numbers += [int(base64.b64decode(event["body"])) for event in page["events"] if event["deviceId"] == DEVICE]
            place = page["next"]
    return numbers


def judge(device, stored):
    missing = set(device.acked) - set(stored)
    if missing:
        fail(f"{len(missing)} acknowledged messages are lost: {sorted(missing)[:10]}")
    phantoms = [number for number in stored if number >= device.sent]
    if phantoms:
        fail(f"the hub has messages that nobody sent: {phantoms[:10]}")
    # One gateway dies, with at most a window of messages whose fate the device cannot know.
    again = len(stored) - len(set(stored))
    if again > WINDOW:
        fail(f"{again} messages are there twice, {WINDOW} at the most were sent again")
    first = list(dict.fromkeys(stored))
    if first != sorted(first):
        fail("messages are not in the order in which they were sent")


def main():
    shards, gateways = containers("shard"), containers("gateway")
    if (len(shards), len(gateways)) != (3, 2):
        fail(f"3 shard nodes and 2 gateways were to come up: {shards}, {gateways}")
    wait_healthy(shards + gateways)
    print(f"healthy: {', '.join(shards + gateways)}", flush=True)

    with tempfile.NamedTemporaryFile(suffix=".pem") as ca_file:
        ca_file.write(file_of(gateways[0], "/var/lib/dunlin-pki/ca.pem"))
        ca_file.flush()
        made = json.loads(run("docker", "exec", gateways[0], "dunlin", "device", "create", DEVICE, "-o", "json"))
        key = made["authentication"]["symmetricKey"]["primaryKey"]
        device = Device([published(gateway, 8883) for gateway in gateways], key, ca_file.name)
        device.wait_acked(STEP)

        for shard in shards:
            run("docker", "kill", shard)
            device.wait_acked(STEP)
            print(f"{shard} killed, the device goes on", flush=True)
            run("docker", "start", shard)
            wait_healthy([shard])
        if device.connects != 1:
            fail(f"the device was dropped {device.connects - 1} times though its gateway lived")
        run("docker", "kill", gateways[0])
        device.wait_acked(STEP)
        print(f"{gateways[0]} killed, the device came back through {gateways[1]}", flush=True)
        device.end()

        stored = read_back(gateways[1], ca_file.name)
        judge(device, stored)
    print(f"{len(device.acked)} messages acknowledged and read back, {len(stored) - len(set(stored))} of them twice")


main()
