"""A device that sends without pause with the device SDK, from several threads at once.

Arguments: connection string, CA file, seconds that a token is good for (the SDK renews it two minutes before its end).
Does what each line says and then says so: `more N` waits until so many more messages are acknowledged, `renewed N`
until the token was renewed so often in all, `losses` tells what the SDK said in the background, `stop` begins no more
messages and tells, when all are acknowledged, what has happened; `end` ends it.
"""

import collections
import logging
import sys
import threading
import time

from azure.iot.device import Message, exceptions

from shared import device_client, say

THREADS = 3
PAUSE_S = 0.05
# What the SDK raises while it has no connection. Whatever else it raises is for good.
PASSING = (
    exceptions.ConnectionFailedError,
    exceptions.ConnectionDroppedError,
    exceptions.NoConnectionError,
    exceptions.OperationCancelled,
    exceptions.OperationTimeout,
)

connection, ca_file, token_s = sys.argv[1:4]
client = device_client(connection, ca_file, sastoken_ttl=int(token_s), connection_retry_interval=1)

changed = threading.Condition()
acknowledged = [0] * THREADS
raised = collections.Counter()
background = collections.Counter()
renewed = 0
is_over = False


class Renewals(logging.Handler):
    """The SDK tells of a new token in its log alone."""

    def emit(self, record):
        global renewed
        if "Connection reauthorization successful" in record.getMessage():
            with changed:
                renewed += 1
                changed.notify_all()


def count(counter, error):
    with changed:
        counter[type(error).__name__] += 1


def send_one(text):
    while True:
        try:
            client.send_message(Message(text))
            return
        except PASSING as error:
            count(raised, error)
        # The SDK connects again by itself, or never.
        while not client.connected:
            time.sleep(PAUSE_S)


def send_all(thread):
    while not is_over:
        try:
            send_one(f"{thread}-{acknowledged[thread]}")
        except Exception as error:  # whatever the SDK makes of a refusal
            say("failed", repr(error))
            return
        with changed:
            acknowledged[thread] += 1
            changed.notify_all()
        time.sleep(PAUSE_S)


def wait_until(is_so):
    with changed:
        changed.wait_for(is_so)


log = logging.getLogger("azure.iot.device.common.pipeline.pipeline_stages_base")
log.setLevel(logging.INFO)
log.addHandler(Renewals())
client.on_background_exception = lambda error: count(background, error)
client.connect()
threads = [threading.Thread(target=send_all, args=(thread,), daemon=True) for thread in range(THREADS)]
for thread in threads:
    thread.start()
say("connected", True)
for line in sys.stdin:
    verb, _, number = line.strip().partition(" ")
    if verb == "more":
        wanted = sum(acknowledged) + int(number)
        wait_until(lambda: sum(acknowledged) >= wanted)
        say("more", sum(acknowledged))
    elif verb == "renewed":
        wait_until(lambda: renewed >= int(number))
        say("renewed", renewed)
    elif verb == "losses":
        say("losses", background)
    elif verb == "stop":
        is_over = True
        for thread in threads:
            thread.join()
        say("stopped", {"acknowledged": acknowledged, "raised": raised, "background": background})
    elif verb == "end":
        break
client.shutdown()
say("ended", True)
