//! Whether a value fits a schema, for the part of JSON Schema that the document uses.
//!
//! A word that is not known here is an error. Stricter than JSON Schema in one thing: what an object has beside its
//! properties must be allowed, so that nothing is answered that is not in the document.

use serde_json::{Value, json};

/// What a reference leads to.
pub(super) fn follow<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        None => value,
        Some(name) => {
            let found = document.pointer(name.strip_prefix('#').unwrap());
            follow(document, found.unwrap_or_else(|| panic!("{name} leads nowhere")))
        }
    }
}

/// Where `value` does not fit `schema`. What an object has beside its properties must be allowed.
pub(super) fn problems(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = follow(document, schema);
    let mut found = Vec::new();
    let mut hold = |holds: bool, what: String| {
        if !holds {
            found.push(format!("{at}: {what}"));
        }
    };
    let mut below = Vec::new();
    for (word, said) in schema.as_object().unwrap() {
        let chars = value.as_str().map(|text| text.chars().count() as u64);
        let length = value.as_array().map(|items| items.len() as u64);
        let size = value.as_object().map(|members| members.len() as u64);
        let number = value.as_f64();
        match word.as_str() {
            "description" | "format" | "contentEncoding" => {}
            "type" => {
                let types = said.as_array().map_or(vec![said], |types| types.iter().collect());
                let is = |kind: &Value| match kind.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "null" => value.is_null(),
                    other => panic!("this test does not know the type {other}"),
                };
                hold(types.iter().any(|kind| is(kind)), format!("{value} is no {said}"));
            }
            "enum" => hold(
                said.as_array().unwrap().contains(value),
                format!("{value} is none of {said}"),
            ),
            "anyOf" => {
                let fits = |schema| problems(document, schema, value, at).is_empty();
                hold(
                    said.as_array().unwrap().iter().any(fits),
                    format!("{value} fits none"),
                );
            }
            "required" => {
                for name in said.as_array().unwrap().iter().filter(|_| value.is_object()) {
                    hold(
                        value.get(name.as_str().unwrap()).is_some(),
                        format!("{name} is missing"),
                    );
                }
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                below.extend(items.map(|item| (said, item, format!("{at}[]"))));
            }
            "properties" => {}
            "additionalProperties" => assert!(said.is_object() || said.as_bool() == Some(true), "{at}"),
            "minimum" => hold(
                number.is_none_or(|it| it >= said.as_f64().unwrap()),
                format!("{value} < {said}"),
            ),
            "maximum" => hold(
                number.is_none_or(|it| it <= said.as_f64().unwrap()),
                format!("{value} > {said}"),
            ),
            "minLength" => hold(
                chars.is_none_or(|it| it >= said.as_u64().unwrap()),
                format!("{value} is short"),
            ),
            "maxLength" => hold(
                chars.is_none_or(|it| it <= said.as_u64().unwrap()),
                format!("{value} is long"),
            ),
            "maxItems" => hold(
                length.is_none_or(|it| it <= said.as_u64().unwrap()),
                "too many items".into(),
            ),
            "maxProperties" => hold(
                size.is_none_or(|it| it <= said.as_u64().unwrap()),
                "too many names".into(),
            ),
            other => panic!("{at}: this test does not know {other}"),
        }
    }
    let (named, others) = (&schema["properties"], &schema["additionalProperties"]);
    if named.is_object() || others.is_object() {
        for (name, member) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            match named.get(name) {
                Some(schema) => below.push((schema, member, at)),
                None if others.is_object() => below.push((others, member, at)),
                None if *others == true => {}
                None => found.push(format!("{at} is not in the document")),
            }
        }
    }
    let below = below
        .into_iter()
        .flat_map(|(schema, value, at)| problems(document, schema, value, &at));
    found.extend(below.collect::<Vec<_>>());
    found
}

#[test]
fn what_does_not_fit_a_schema_is_found() {
    let document = json!({"word": {"type": "string", "enum": ["a", "b"], "minLength": 1, "maxLength": 1}});
    let schema = json!({
        "type": "object", "required": ["n"], "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 3},
            "words": {"type": "array", "items": {"$ref": "#/word"}, "maxItems": 2},
            "any": {"description": "anything"},
            "either": {"anyOf": [{"type": "null"}, {"$ref": "#/word"}]},
            "map": {"type": ["object", "null"], "additionalProperties": {"type": "boolean"}},
        },
    });
    let fits = json!({"n": 1, "words": ["a", "b"], "any": [1], "either": null, "map": {"x": true}});
    assert_eq!(problems(&document, &schema, &fits, ""), Vec::<String>::new());
    for (name, wrong) in [
        ("n", json!("1")),
        ("n", json!(0)),
        ("n", json!(4)),
        ("n", json!(1.5)),
        ("words", json!(["c"])),
        ("words", json!(["a", "a", "a"])),
        ("either", json!("")),
        ("map", json!({"x": 1})),
        ("map", json!([])),
        ("more", json!(1)),
    ] {
        let mut value = fits.clone();
        value[name] = wrong;
        assert!(!problems(&document, &schema, &value, "").is_empty(), "{value}");
    }
    assert!(!problems(&document, &schema, &json!({}), "").is_empty());
}
