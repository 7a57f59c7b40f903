"""What these scripts share: how they say what has happened, how they get by while nodes die, the device SDK's
client, and what readers of events tell."""

import base64
import json
import threading
import time

_lock = threading.Lock()


def shown(value):
    """Bytes as the text that they are; whatever JSON has no form for in its own."""
    return value.decode() if isinstance(value, bytes) else str(value)


def say(what, value):
    """A line of a word and a value, from whichever thread."""
    with _lock:
        print(what, json.dumps(value, sort_keys=True, default=shown), flush=True)


def asked_again(call):
    """A node that has just lost its neighbour may have no answer for a moment; whoever reads may ask again."""
    from msrest.exceptions import ClientRequestError, HttpOperationError

    for _ in range(600):
        try:
            return call()
        except (ClientRequestError, HttpOperationError) as error:
            status = getattr(getattr(error, "response", None), "status_code", 503)
            if status < 500 and status != 429:
                raise
            time.sleep(0.1)
    raise SystemExit("no answer")


def device_client(connection, ca_file, **options):
    """The device SDK's client, which trusts what is in the file."""
    from azure.iot.device import IoTHubDeviceClient

    with open(ca_file, encoding="utf-8") as file:
        trusted = file.read()
    return IoTHubDeviceClient.create_from_connection_string(
        connection, server_verification_cert=trusted, **options
    )


def say_event(partition, event):
    """An event that the Event Hubs SDK has read."""
    say(
        "event",
        {
            "partition": int(partition.partition_id),
            "sequence": event.sequence_number,
            "offset": event.offset,
            "body": base64.b64encode(b"".join(event.body)).decode(),
            "system": _keyed(event.system_properties),
            "properties": _keyed(event.properties),
        },
    )


def say_error(partition, error):
    """What the Event Hubs SDK could not do."""
    say("error", {"partition": partition and partition.partition_id, "error": repr(error)})


def _keyed(values):
    return {shown(key): value for key, value in (values or {}).items()}
