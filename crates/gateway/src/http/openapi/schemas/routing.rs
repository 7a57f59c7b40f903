//! Bodies of message routing.
//!
//! What stands in them is decided in [`crate::http::routing`].

use dunlin_model::routing::{
    ADDRESS_BYTES_MAX, CONDITION_BYTES_MAX, ENDPOINTS_MAX, ENRICHMENT_BYTES_MAX, ENRICHMENTS_MAX,
    EventSource, NAME_BYTES_MAX, ROUTES_MAX,
};
use serde_json::{Value, json};

use super::{list_of, map_of, number, object, text};

pub(super) fn routing() -> Value {
    let name = json!({ "type": "string", "maxLength": NAME_BYTES_MAX });
    let names = list_of(name.clone());
    let source = json!({ "type": "string", "enum": EventSource::ALL });
    let condition = json!({ "type": "string", "maxLength": CONDITION_BYTES_MAX });
    let flag = json!({ "type": "boolean" });
    let address = json!({ "type": "string", "maxLength": ADDRESS_BYTES_MAX });
    let at_most = |max: usize, items: Value| json!({ "type": "array", "maxItems": max, "items": items });
    let route = json!({
        "name": name, "source": source, "condition": condition, "endpointNames": names, "isEnabled": flag,
    });
    let enrichment = object(
        &["key", "value", "endpointNames"],
        json!({
            "key": name,
            "value": { "type": "string", "maxLength": ENRICHMENT_BYTES_MAX, "description": "Text, `$iothubname`, or a path of `$twin`." },
            "endpointNames": names,
        }),
    );
    json!({
        "Routing": object(&["routes", "fallbackRoute", "endpoints", "enrichments", "etag"], json!({
            "routes": list_of(object(&["name", "source", "condition", "endpointNames", "isEnabled"], route.clone())),
            "fallbackRoute": object(&["name", "source", "condition", "endpointNames", "isEnabled"], route.clone()),
            "endpoints": object(&["webhooks", "storageContainers"], json!({
                "webhooks": list_of(object(&["name", "id", "url", "hasAuthorization", "hasAuthority"], json!({
                    "name": name, "id": text(), "url": address, "hasAuthorization": flag, "hasAuthority": flag,
                }))),
                "storageContainers": list_of(object(&["name", "id", "containerName"], json!({
                    "name": name, "id": text(), "containerName": name,
                }))),
            })),
            "enrichments": list_of(enrichment.clone()),
            "etag": text(),
        })),
        "RoutingInput": object(&[], json!({
            "routes": at_most(ROUTES_MAX, object(&["name", "source", "endpointNames"], route)),
            "fallbackRoute": {
                "type": "object", "required": ["isEnabled"], "properties": { "isEnabled": flag }, "additionalProperties": true,
                "description": "On unless it is said to be off.",
            },
            "endpoints": object(&[], json!({
                "webhooks": at_most(ENDPOINTS_MAX, object(&["name", "url"], json!({
                    "name": name,
                    "url": address,
                    "authorization": { "type": "string", "description": "Value of the `authorization` header that it is sent." },
                    "authority": { "type": "string", "description": "Certificates (PEM) of who vouches for it." },
                    "id": text(), "hasAuthorization": flag, "hasAuthority": flag,
                }))),
                "storageContainers": at_most(ENDPOINTS_MAX, object(&["name", "containerName"], json!({
                    "name": name, "containerName": name, "id": text(),
                }))),
            })),
            "enrichments": at_most(ENRICHMENTS_MAX, enrichment),
            "etag": text(),
        })),
        "RoutingTrial": object(&[], json!({
            "source": source,
            "condition": condition,
            "message": object(&[], json!({
                "body": {},
                "appProperties": map_of(text()),
                "systemProperties": map_of(text()),
            })),
            "deviceId": text(),
            "moduleId": text(),
        })),
        "RoutingTrialResult": object(&[], json!({
            "routes": names, "endpointNames": names,
            "result": { "type": "boolean", "description": "Of a condition that was tried by itself, instead." },
        })),
        "EndpointHealth": object(&["endpointName", "id", "eventsBehind", "shards"], json!({
            "endpointName": name,
            "id": text(),
            "eventsBehind": number(),
            "shards": list_of(object(&["shard", "next", "behind"], json!({
                "shard": number(), "next": { "type": ["integer", "null"] }, "behind": number(),
            }))),
        })),
    })
}
