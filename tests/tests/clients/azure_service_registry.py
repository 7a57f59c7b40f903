"""The registry as the service SDK works on it. Arguments: connection string, CA file, thumbprint of a certificate.

Leaves a device `parent` with a module `cam`, and a device `x509` with that certificate; prints the module's key.
"""

import base64
import os
import sys

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


# Devices with keys: made, read, rolled, swapped, disabled.
made = manager.create_device_with_sas("parent", FIRST, SECOND, "enabled", True, "a reason")
assert made.authentication.symmetric_key.primary_key == FIRST and made.capabilities.iot_edge, made.as_dict()
assert made.status_reason == "a reason" and made.connection_state == "Disconnected", made.as_dict()
refused(409, "DeviceAlreadyExists", manager.create_device_with_sas, "parent", FIRST, SECOND, "enabled")
refused(404, "DeviceNotFound", manager.get_device, "nobody")
swapped = manager.update_device_with_sas("parent", made.etag, SECOND, FIRST, "enabled")
assert swapped.generation_id == made.generation_id and swapped.etag != made.etag
refused(412, "PreconditionFailed", manager.update_device_with_sas, "parent", made.etag, SECOND, FIRST, "enabled")
rolled = manager.update_device_with_sas("parent", None, THIRD, FIRST, "enabled")
assert manager.get_device("parent").authentication.symmetric_key.primary_key == THIRD
assert rolled.generation_id != made.generation_id
drawn = manager.create_device_with_sas("drawn", "", "", "disabled")
assert len(base64.b64decode(drawn.authentication.symmetric_key.primary_key)) == 32

# Devices with certificates.
signed = manager.create_device_with_x509("x509", thumbprint, "", "enabled")
assert signed.authentication.type == "selfSigned", signed.as_dict()
assert signed.authentication.x509_thumbprint.primary_thumbprint == thumbprint.upper()
authority = manager.create_device_with_certificate_authority("by-ca", "enabled")
assert authority.authentication.type == "certificateAuthority", authority.as_dict()
manager.delete_device("by-ca", authority.etag)

# Modules.
module = manager.create_module_with_sas("parent", "cam", "edge", FIRST, SECOND)
assert (module.device_id, module.module_id, module.managed_by) == ("parent", "cam", "edge"), module.as_dict()
refused(409, "ModuleAlreadyExistsOnDevice", manager.create_module_with_sas, "parent", "cam", "", FIRST, SECOND)
refused(404, "DeviceNotFound", manager.create_module_with_sas, "nobody", "cam", "", FIRST, SECOND)
module = manager.update_module_with_sas("parent", "cam", "me", module.etag, FIRST, THIRD)
assert manager.get_module("parent", "cam").managed_by == "me"
manager.create_module_with_x509("parent", "mic", "", thumbprint, thumbprint)
assert [module.module_id for module in manager.get_modules("parent")] == ["cam", "mic"]
manager.delete_module("parent", "mic")
refused(404, "ModuleNotFound", manager.get_module, "parent", "mic")
twin = manager.update_module_twin("parent", "cam", Twin(tags={"room": 1}), None)
assert (twin.module_id, twin.tags) == ("cam", {"room": 1}), twin.as_dict()

# Lists and counts.
assert sorted(device.device_id for device in manager.get_devices()) == ["drawn", "parent", "x509"]
assert len(manager.get_devices(2)) == 2
counts = manager.get_device_registry_statistics()
assert (counts.total_device_count, counts.disabled_device_count) == (3, 1), counts.as_dict()
assert manager.get_service_statistics().connected_device_count == 0

# Many at once.
keys = AuthenticationMechanism(type="sas", symmetric_key=SymmetricKey(primary_key=FIRST, secondary_key=SECOND))
many = [
    ExportImportDevice(id=f"bulk-{n}", import_mode="create", status="enabled", authentication=keys) for n in range(100)
]
result = manager.bulk_create_or_update_devices(many)
assert result.is_successful and not result.errors, result.as_dict()
assert manager.get_device_registry_statistics().total_device_count == 103
result = manager.bulk_create_or_update_devices(many[:1])
assert not result.is_successful and result.errors[0].error_code == "DeviceAlreadyExists", result.as_dict()
for entry in many:
    entry.import_mode = "delete"
assert manager.bulk_create_or_update_devices(many).is_successful
assert manager.get_device_registry_statistics().total_device_count == 3
manager.delete_device("drawn")
print(FIRST)
