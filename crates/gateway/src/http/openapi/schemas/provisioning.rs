//! What bodies of provisioning look like: enrolments, registrations, linked hubs, and errors in the form of DPS.
//!
//! What the hub reads and writes is in [`crate::provisioning`]; the words of a schema are in [`super`].

use dunlin_model::provisioning::ENROLLMENT_HUBS_MAX;
use dunlin_model::provisioning::book::WEIGHT_MAX;
use serde_json::{Value, json};

use super::{anything, list_of, maybe_text, named, number, object, text, time, words};
use crate::limits::PROVISIONING_BULK_MAX;

pub(super) fn attestations() -> Value {
    let certificate = json!({
        "type": ["object", "null"],
        "properties": {
            "certificate": { "type": ["string", "null"], "description": "PEM or Base64, when it is sent; answers tell `info` alone." },
            "info": { "type": ["object", "null"], "additionalProperties": true },
        },
    });
    let pair = object(&[], json!({ "primary": certificate, "secondary": certificate }));
    json!({
        "Attestation": object(&[], json!({
            "type": words(&["symmetricKey", "x509", "tpm"]),
            "symmetricKey": object(&[], json!({ "primaryKey": maybe_text(), "secondaryKey": maybe_text() })),
            "x509": object(&[], json!({
                "clientCertificates": pair,
                "signingCertificates": pair,
                "caReferences": object(&[], json!({ "primary": maybe_text(), "secondary": maybe_text() })),
            })),
            "tpm": object(&["endorsementKey"], json!({
                "endorsementKey": text(), "storageRootKey": maybe_text(),
            })),
        })),
    })
}

pub(super) fn enrollments() -> Value {
    let twin = object(
        &[],
        json!({
            "tags": anything(),
            "properties": object(&[], json!({ "desired": anything() })),
        }),
    );
    let mut said = json!({
        "attestation": named("Attestation"),
        "capabilities": object(&[], json!({ "iotEdge": { "type": "boolean" } })),
        "provisioningStatus": words(&["enabled", "disabled"]),
        "reprovisionPolicy": object(&[], json!({
            "updateHubAssignment": { "type": "boolean" }, "migrateDeviceData": { "type": "boolean" },
        })),
        "allocationPolicy": words(&["hashed", "geoLatency", "static", "custom"]),
        "iotHubHostName": text(),
        "iotHubs": { "type": "array", "items": text(), "maxItems": ENROLLMENT_HUBS_MAX },
        "customAllocationDefinition": object(&["webhookUrl"], json!({
            "webhookUrl": text(), "apiVersion": text(),
        })),
        "initialTwin": twin,
        "optionalDeviceInformation": { "description": "Any JSON." },
    });
    let input = {
        let mut input = said.clone();
        input["registrationId"] = text();
        input["enrollmentGroupId"] = text();
        input["deviceId"] = text();
        json!({
            "type": "object",
            "description": "Whole enrolments may be sent back: what cannot be set is left alone.",
            "properties": input,
            "additionalProperties": true,
        })
    };
    for (name, schema) in [
        ("etag", text()),
        ("createdDateTimeUtc", time()),
        ("lastUpdatedDateTimeUtc", time()),
    ] {
        said[name] = schema;
    }
    let always = [
        "attestation",
        "capabilities",
        "etag",
        "provisioningStatus",
        "reprovisionPolicy",
        "allocationPolicy",
    ];
    let (mut single, mut group) = (said.clone(), said);
    single["registrationId"] = text();
    single["deviceId"] = text();
    single["registrationState"] = named("Registration");
    group["enrollmentGroupId"] = text();
    let with = |name: &'static str| [&always[..], &[name]].concat();
    json!({
        "Enrollment": object(&with("registrationId"), single),
        "EnrollmentGroup": object(&with("enrollmentGroupId"), group),
        "EnrollmentInput": input,
        "EnrollmentQuery": object(&["query"], json!({ "query": text() })),
        "EnrollmentBulk": object(&["mode"], json!({
            "mode": words(&["create", "update", "updateIfMatchETag", "delete"]),
            "enrollments": { "type": "array", "items": named("EnrollmentInput"), "maxItems": PROVISIONING_BULK_MAX },
            "enrollmentGroups": { "type": "array", "items": named("EnrollmentInput"), "maxItems": PROVISIONING_BULK_MAX },
        })),
        "EnrollmentBulkResult": object(&["isSuccessful", "errors"], json!({
            "isSuccessful": { "type": "boolean" },
            "errors": list_of(object(&["registrationId", "errorCode", "errorStatus"], json!({
                "registrationId": { "type": "string", "description": "Or the name of the group." },
                "errorCode": number(),
                "errorStatus": text(),
            }))),
        })),
    })
}

pub(super) fn registrations() -> Value {
    let under = object(&[], json!({ "enrollmentGroupId": text() }));
    let tpm = object(
        &[],
        json!({
            "enrollmentGroupId": text(),
            "authenticationKey": { "type": "string", "description": "The device's key at its hub, which its TPM alone can open." },
        }),
    );
    let state = json!({
        "registrationId": text(),
        "createdDateTimeUtc": time(),
        "assignedHub": text(),
        "deviceId": text(),
        "status": words(&["assigned", "failed", "disabled"]),
        "substatus": words(&[
            "initialAssignment", "deviceDataMigrated", "deviceDataReset", "reprovisionedToInitialAssignment",
        ]),
        "errorCode": number(),
        "errorMessage": text(),
        "lastUpdatedDateTimeUtc": time(),
        "etag": text(),
        "symmetricKey": under,
        "x509": under,
        "tpm": tpm,
        "payload": { "description": "What a webhook has for the device." },
    });
    json!({
        "Registration": object(&["registrationId", "status"], state),
        "RegistrationRequest": object(&[], json!({
            "registrationId": text(),
            "payload": { "description": "What the device says to a webhook." },
            "tpm": object(&["endorsementKey", "storageRootKey"], json!({
                "endorsementKey": text(), "storageRootKey": text(),
            })),
        })),
        "OperationBegun": object(&["operationId", "status"], json!({
            "operationId": text(), "status": words(&["assigning"]),
        })),
        "RegistrationOperation": object(&["operationId", "status"], json!({
            "operationId": text(),
            "status": words(&["assigned", "failed", "disabled"]),
            "registrationState": named("Registration"),
        })),
    })
}

pub(super) fn hubs() -> Value {
    let hub = object(
        &["hostName", "weight", "isOwn"],
        json!({
            "hostName": text(), "weight": number(), "isOwn": { "type": "boolean" },
        }),
    );
    json!({
        "Provisioning": object(&["idScope", "linkedHubs"], json!({ "idScope": text(), "linkedHubs": list_of(hub) })),
        "LinkedHubInput": object(&[], json!({
            "connectionString": { "type": "string", "description": "Of a policy that may write the hub's registry and twins." },
            "authority": { "type": "string", "description": "PEM of who vouches for the hub, if not those whom the system trusts." },
            "weight": { "type": "integer", "minimum": 0, "maximum": WEIGHT_MAX },
        })),
        "ProvisioningError": object(&["errorCode", "trackingId", "message", "timestampUtc"], json!({
            "errorCode": number(),
            "trackingId": text(),
            "message": text(),
            "info": anything(),
            "timestampUtc": time(),
        })),
        "TpmChallenge": object(&["message", "authenticationKey", "keyName"], json!({
            "message": text(), "authenticationKey": text(), "keyName": text(),
        })),
    })
}
