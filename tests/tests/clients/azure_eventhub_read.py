"""Reads events with PyPI's azure-eventhub, unmodified.

Arguments: connection string, CA file, consumer group, and a JSON object of where each partition is begun: an offset as
text, a sequence number (read from there on), or {"time": milliseconds since 1970}. Writes a line for the hub, one for
each partition and one for each event, and ends when it is told to.
"""

import datetime
import json
import sys
import threading

from azure.eventhub import EventHubConsumerClient

from shared import say, say_error, say_event

connection, ca_file, group, places = sys.argv[1:5]


def position(place):
    if isinstance(place, dict):
        return datetime.datetime.fromtimestamp(place["time"] / 1000, datetime.timezone.utc)
    return place


def on_events(partition, events):
    for event in events:
        say_event(partition, event)


places = json.loads(places)
client = EventHubConsumerClient.from_connection_string(connection, group, connection_verify=ca_file)
say("hub", client.get_eventhub_properties())
for partition in client.get_partition_ids():
    say("partition", client.get_partition_properties(partition))
reading = threading.Thread(
    # One by one, this client takes turns with partitions that have nothing, a fifth of a second each.
    target=client.receive_batch,
    kwargs={
        "on_event_batch": on_events,
        "on_error": say_error,
        "starting_position": {partition: position(place) for partition, place in places.items()},
        "starting_position_inclusive": {partition: isinstance(place, int) for partition, place in places.items()},
    },
)
reading.start()
for line in sys.stdin:
    if line.strip() == "end":
        break
client.close()
reading.join()
say("ended", True)
