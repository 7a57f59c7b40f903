"""A member of a consumer group with PyPI's confluent-kafka, unmodified.

Arguments: bootstrap servers, connection string, CA file, group. Says what it is assigned, and each event once it has
committed it; ends when it is told to.
"""

import sys
import threading

from confluent_kafka import Consumer, KafkaException

from shared import say

servers, connection, ca_file, group = sys.argv[1:5]
is_over = threading.Event()


def text(value):
    return None if value is None else value.decode()


def on_assign(_, partitions):
    say("assigned", sorted(partition.partition for partition in partitions))


def on_revoke(_, partitions):
    say("revoked", sorted(partition.partition for partition in partitions))


def listen():
    for line in sys.stdin:
        if line.strip() == "end":
            break
    is_over.set()


consumer = Consumer(
    {
        "bootstrap.servers": servers,
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "$ConnectionString",
        "sasl.password": connection,
        "ssl.ca.location": ca_file,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
        "reconnect.backoff.max.ms": 500,
    },
    logger=None,
)
threading.Thread(target=listen, daemon=True).start()
consumer.subscribe(["messages"], on_assign=on_assign, on_revoke=on_revoke)
while not is_over.is_set():
    message = consumer.poll(0.2)
    if message is None:
        continue
    if message.error():
        say("error", str(message.error()))
        continue
    try:
        consumer.commit(message=message, asynchronous=False)
    except KafkaException as error:
        # Somebody else reads it again.
        say("uncommitted", str(error))
    say(
        "event",
        {
            "partition": message.partition(),
            "offset": message.offset(),
            "time": message.timestamp()[1],
            "key": text(message.key()),
            "body": text(message.value()),
            "headers": {name: text(value) for name, value in message.headers() or []},
        },
    )
consumer.close()
say("ended", None)
