"""Reads events with PyPI's azure-eventhub, unmodified, and keeps how far it is in a checkpoint store.

Arguments: connection string, CA file, consumer group, file of the store. Writes the checkpoints that it begins with,
and a line for each event; of each partition, every tenth of them is a checkpoint. Ends when it is told to.
"""

import collections
import json
import os
import sys
import threading
import time
import uuid

from azure.eventhub import CheckpointStore, EventHubConsumerClient

from shared import say, say_error, say_event

CHECKPOINT_EVERY = 10

connection, ca_file, group, path = sys.argv[1:5]


class FileStore(CheckpointStore):
    """Who has which partition, and how far each was read, in a file that outlasts its readers."""

    def __init__(self, path):
        self.path = path
        # The SDK claims partitions in one thread and keeps checkpoints in another.
        self.lock = threading.Lock()

    def _read(self):
        if not os.path.exists(self.path):
            return {"ownership": {}, "checkpoint": {}}
        with open(self.path, encoding="utf-8") as file:
            return json.load(file)

    def _write(self, kept):
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(self.path + ".new", self.path)

    def _list(self, kind, *whose):
        with self.lock:
            kept = self._read()[kind].values()
        return [one for one in kept if self._whose(one) == whose]

    @staticmethod
    def _whose(one):
        return one["fully_qualified_namespace"], one["eventhub_name"], one["consumer_group"]

    def _key(self, one):
        return "/".join([*self._whose(one), one["partition_id"]])

    def checkpoints_of(self, group):
        """The last sequence number that is done with, by partition."""
        with self.lock:
            kept = self._read()["checkpoint"].values()
        return {one["partition_id"]: one["sequence_number"] for one in kept if one["consumer_group"] == group}

    def list_ownership(self, fully_qualified_namespace, eventhub_name, consumer_group, **kwargs):
        return self._list("ownership", fully_qualified_namespace, eventhub_name, consumer_group)

    def claim_ownership(self, ownership_list, **kwargs):
        claimed = []
        with self.lock:
            kept = self._read()
            for one in ownership_list:
                before = kept["ownership"].get(self._key(one), {})
                if before.get("etag") == one.get("etag"):
                    one = {**one, "etag": str(uuid.uuid4()), "last_modified_time": time.time()}
                    kept["ownership"][self._key(one)] = one
                    claimed.append(one)
            self._write(kept)
        return claimed

    def update_checkpoint(self, checkpoint, **kwargs):
        with self.lock:
            kept = self._read()
            kept["checkpoint"][self._key(checkpoint)] = checkpoint
            self._write(kept)

    def list_checkpoints(self, fully_qualified_namespace, eventhub_name, consumer_group, **kwargs):
        return self._list("checkpoint", fully_qualified_namespace, eventhub_name, consumer_group)


read = collections.Counter()


def on_events(partition, events):
    for event in events:
        say_event(partition, event)
        read[partition.partition_id] += 1
        if read[partition.partition_id] % CHECKPOINT_EVERY == 0:
            partition.update_checkpoint(event)


store = FileStore(path)
client = EventHubConsumerClient.from_connection_string(
    connection,
    group,
    connection_verify=ca_file,
    checkpoint_store=store,
    # Whoever was killed has its partitions for two seconds more.
    load_balancing_interval=0.5,
    partition_ownership_expiration_interval=2,
)
say("checkpoints", store.checkpoints_of(group))
reading = threading.Thread(
    target=client.receive_batch,
    # Of each partition it takes so many at a time, however fast they come.
    kwargs={"on_event_batch": on_events, "on_error": say_error, "starting_position": "-1", "prefetch": 20},
)
reading.start()
for line in sys.stdin:
    if line.strip() == "end":
        break
client.close()
reading.join()
say("ended", True)
