//! Bodies about the node and the cluster, and errors.
//!
//! What stands in them is decided by the hooks of the gateway and in `cluster`, which it does not know.

use dunlin_model::quota::Tier;
use serde_json::{Value, json};

use super::{anything, list_of, map_of, number, object, text, time, words};

pub(super) fn general() -> Value {
    json!({
        "Error": object(&["Message", "ExceptionMessage"], json!({
            "Message": { "type": "string", "description": "`ErrorCode:NAME;` and a sentence." },
            "ExceptionMessage": { "type": "string", "description": "`Tracking ID:` and a number." },
        })),
        "Document": { "type": "object", "additionalProperties": true, "description": "OpenAPI 3.1." },
    })
}

pub(super) fn quota() -> Value {
    let sku = object(
        &["name", "capacity"],
        json!({
            "name": words(&Tier::ALL.map(Tier::name)),
            "capacity": { "type": "integer", "minimum": 1, "description": "Units." },
        }),
    );
    let mut sku_or_none = sku;
    sku_or_none["type"] = json!(["object", "null"]);
    json!({
        "Quota": object(&["sku", "metrics", "rates"], json!({
            "sku": sku_or_none,
            "metrics": list_of(object(&["name", "currentValue", "maxValue"], json!({
                "name": words(&["TotalMessages"]), "currentValue": number(), "maxValue": number(),
            }))),
            "rates": list_of(object(&["operation", "count", "perSeconds"], json!({
                "operation": text(), "count": number(), "perSeconds": number(),
            }))),
        })),
        "Erased": object(&["deviceId", "shard", "upto"], json!({
            "deviceId": text(), "shard": number(), "upto": number(),
        })),
        "QuotaInput": object(&["sku"], json!({ "sku": sku_or_none })),
    })
}

pub(super) fn cluster() -> Value {
    json!({
        "AdminRequest": object(&["op"], json!({
            "op": words(&[
                "status", "drain", "undrain", "remove", "token", "use-token", "recover", "authorities", "put-authority",
                "remove-authority", "policies", "create-policy", "renew-policy-key", "remove-policy", "set-replication",
            ]),
            "node": { "type": "string", "description": "`drain`, `undrain`, `remove`: id of the node, or enough of its beginning." },
            "force": { "type": "boolean", "description": "`drain`: even if groups are left with too few replicas." },
            "minutes": { "type": "integer", "minimum": 1, "description": "`token`: how long it is good for." },
            "secret": { "type": "string", "description": "`use-token`: its secret." },
            "accept_loss": { "type": "boolean", "description": "`recover`: do it, and do not only say what would be done." },
            "name": { "type": "string", "description": "`put-authority`, `remove-authority`, `create-policy`, `renew-policy-key`, `remove-policy`: its name here." },
            "rights": { "type": "array", "items": text(), "description": "`create-policy`: what it grants." },
            "key": { "type": "string", "enum": ["primary", "secondary", "swap"], "description": "`renew-policy-key`: which." },
            "certificate": { "type": "string", "description": "`put-authority`: PEM." },
            "replicas": { "type": "integer", "enum": [1, 3, 5, 7], "description": "`set-replication`: how many each group has." },
        })),
        "AdminAnswer": { "description": "What `op` answers: an object, or a list." },
        "JoinRequest": object(&["secret"], json!({ "secret": text() })),
        "JoinFiles": map_of(text()),
        "Certificates": object(&["certificates"], json!({
            "node": text(),
            "certificates": list_of(object(&["certificate", "notAfter", "secondsLeft"], json!({
                "certificate": text(),
                "source": text(),
                "sha256": text(),
                "notAfter": time(),
                "secondsLeft": number(),
                "renewals": number(),
                "failed": { "description": "What went wrong when it was last renewed, if anything did." },
            }))),
        })),
        "Faults": anything(),
        "Health": {
            "type": "object", "required": ["status"],
            "properties": { "status": text(), "node": text(), "reasons": list_of(text()) },
            "additionalProperties": true,
        },
    })
}
