"""The registry as the service SDK works on it. Arguments: connection string, CA file, thumbprint of a certificate.

Makes a device `parent` with a module `cam`, a device `x509` with that certificate and a device `kept`, and says the key
of the module. Then, for each line, a name, it does with devices of that name all that can be done, goes on with what it
made before, and says what there is at the end. `end` ends it.
"""

import base64
import os
import sys

from shared import asked_again, say

connection, ca_file, thumbprint = sys.argv[1:4]
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import (  # noqa: E402
    AuthenticationMechanism,
    ExportImportDevice,
    SymmetricKey,
    Twin,
)
from msrest.exceptions import HttpOperationError  # noqa: E402

manager = IoTHubRegistryManager.from_connection_string(connection)
FIRST, SECOND, THIRD = (base64.b64encode(bytes([n]) * 32).decode() for n in range(3))


def refused(status, code, call, *arguments):
    try:
        call(*arguments)
    except HttpOperationError as error:
        response = error.response
        assert response.status_code == status, response.text
        assert response.headers["iothub-errorcode"] == code, response.text
        assert response.json()["Message"].startswith(f"ErrorCode:{code};"), response.text
        return
    raise SystemExit(f"{call.__name__} {arguments} was not refused")


def names():
    return asked_again(lambda: sorted(device.device_id for device in manager.get_devices()))


def devices_with_keys(own, drawn):
    """Made, read, swapped, rolled, disabled."""
    made = manager.create_device_with_sas(own, FIRST, SECOND, "enabled", True, "a reason")
    assert made.authentication.symmetric_key.primary_key == FIRST and made.capabilities.iot_edge, made.as_dict()
    assert made.status_reason == "a reason" and made.connection_state == "Disconnected", made.as_dict()
    refused(409, "DeviceAlreadyExists", manager.create_device_with_sas, own, FIRST, SECOND, "enabled")
    refused(404, "DeviceNotFound", manager.get_device, "nobody")
    swapped = manager.update_device_with_sas(own, made.etag, SECOND, FIRST, "enabled")
    assert swapped.generation_id == made.generation_id and swapped.etag != made.etag
    refused(412, "PreconditionFailed", manager.update_device_with_sas, own, made.etag, SECOND, FIRST, "enabled")
    rolled = manager.update_device_with_sas(own, None, THIRD, FIRST, "enabled")
    assert manager.get_device(own).authentication.symmetric_key.primary_key == THIRD
    assert rolled.generation_id != made.generation_id
    device = manager.create_device_with_sas(drawn, "", "", "disabled")
    assert len(base64.b64decode(device.authentication.symmetric_key.primary_key)) == 32


def devices_with_certificates(own, by_authority):
    signed = manager.create_device_with_x509(own, thumbprint, "", "enabled")
    assert signed.authentication.type == "selfSigned", signed.as_dict()
    assert signed.authentication.x509_thumbprint.primary_thumbprint == thumbprint.upper()
    authority = manager.create_device_with_certificate_authority(by_authority, "enabled")
    assert authority.authentication.type == "certificateAuthority", authority.as_dict()
    manager.delete_device(by_authority, authority.etag)


def modules(device):
    module = manager.create_module_with_sas(device, "cam", "edge", FIRST, SECOND)
    assert (module.device_id, module.module_id, module.managed_by) == (device, "cam", "edge"), module.as_dict()
    refused(409, "ModuleAlreadyExistsOnDevice", manager.create_module_with_sas, device, "cam", "", FIRST, SECOND)
    refused(404, "DeviceNotFound", manager.create_module_with_sas, "nobody", "cam", "", FIRST, SECOND)
    manager.update_module_with_sas(device, "cam", "me", module.etag, FIRST, THIRD)
    assert manager.get_module(device, "cam").managed_by == "me"
    manager.create_module_with_x509(device, "mic", "", thumbprint, thumbprint)
    assert [module.module_id for module in manager.get_modules(device)] == ["cam", "mic"]
    manager.delete_module(device, "mic")
    refused(404, "ModuleNotFound", manager.get_module, device, "mic")
    twin = manager.update_module_twin(device, "cam", Twin(tags={"room": 1}), None)
    assert (twin.module_id, twin.tags) == ("cam", {"room": 1}), twin.as_dict()
    return twin


def many_at_once(name):
    before = manager.get_device_registry_statistics().total_device_count
    keys = AuthenticationMechanism(type="sas", symmetric_key=SymmetricKey(primary_key=FIRST, secondary_key=SECOND))
    many = [
        ExportImportDevice(id=f"{name}-{n}", import_mode="create", status="enabled", authentication=keys)
        for n in range(100)
    ]
    result = manager.bulk_create_or_update_devices(many)
    assert result.is_successful and not result.errors, result.as_dict()
    assert manager.get_device_registry_statistics().total_device_count == before + 100
    result = manager.bulk_create_or_update_devices(many[:1])
    assert not result.is_successful and result.errors[0].error_code == "DeviceAlreadyExists", result.as_dict()
    for entry in many:
        entry.import_mode = "delete"
    assert manager.bulk_create_or_update_devices(many).is_successful
    assert manager.get_device_registry_statistics().total_device_count == before


def walk(name):
    """All of it, with devices of its own that are gone at the end."""
    others = names()
    counted = manager.get_device_registry_statistics()
    own = [f"{name}-{kind}" for kind in ("drawn", "own", "x509")]
    devices_with_keys(own[1], own[0])
    devices_with_certificates(own[2], f"{name}-by-ca")
    modules(own[1])
    assert sorted(device.device_id for device in manager.get_devices()) == sorted(others + own)
    assert len(manager.get_devices(2)) == 2
    counts = manager.get_device_registry_statistics()
    assert counts.total_device_count == counted.total_device_count + 3, counts.as_dict()
    assert counts.disabled_device_count == counted.disabled_device_count + 1, counts.as_dict()
    many_at_once(f"{name}-bulk")
    for device in own:
        manager.delete_device(device)


def go_on(kept, twin):
    """What was made before is as it was left, and its ETags are the same."""
    found = manager.get_device("kept")
    assert (found.etag, found.generation_id, found.status) == (kept.etag, kept.generation_id, kept.status)
    keys = kept.authentication.symmetric_key
    assert found.authentication.symmetric_key.as_dict() == keys.as_dict()
    now = manager.update_device_with_sas("kept", kept.etag, keys.secondary_key, keys.primary_key, "enabled")
    refused(412, "PreconditionFailed", manager.update_device_with_sas, "kept", kept.etag, FIRST, SECOND, "enabled")
    assert manager.get_module("parent", "cam").managed_by == "me"
    assert manager.get_module_twin("parent", "cam").tags == twin.tags
    tags = {"room": twin.tags["room"] + 1}
    return now, manager.update_module_twin("parent", "cam", Twin(tags=tags), twin.etag)


manager.create_device_with_sas("parent", FIRST, SECOND, "enabled")
twin = modules("parent")
manager.create_device_with_x509("x509", thumbprint, "", "enabled")
kept = manager.create_device_with_sas("kept", FIRST, SECOND, "enabled")
assert manager.get_service_statistics().connected_device_count == 0
say("made", FIRST)
for line in sys.stdin:
    name = line.strip()
    if name == "end":
        break
    walk(name)
    kept, twin = go_on(kept, twin)
    say("walked", {"devices": names(), "room": twin.tags["room"]})
say("ended", True)
