//! How twins merge, what versions and times they keep, what is too large, and what may not come in.

use proptest::prelude::*;
use serde_json::json;

use super::check::{INTEGER_MAX, TwinFault, check};
use super::*;
use crate::configuration::Mark;

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

#[test]
fn a_patch_merges_as_iot_hub_merges() {
    let mut twin = Twin::default();
    for (patch, expected) in [
        (
            json!({"a": 1, "b": {"c": "x", "d": true}}),
            json!({"a": 1, "b": {"c": "x", "d": true}}),
        ),
        (
            json!({"b": {"c": null, "e": [1, 2]}}),
            json!({"a": 1, "b": {"d": true, "e": [1, 2]}}),
        ),
        (
            json!({"a": {"now": "an object"}}),
            json!({"a": {"now": "an object"}, "b": {"d": true, "e": [1, 2]}}),
        ),
        (
            json!({"a": {"x": {"y": null}}, "b": 7}),
            json!({"a": {"now": "an object", "x": {}}, "b": 7}),
        ),
        (json!({"a": null, "gone": null}), json!({"b": 7})),
    ] {
        assert!(twin.report(&object(patch), 5));
        assert_eq!(twin.reported.content, object(expected));
    }
    assert_eq!((twin.reported.version, twin.version, twin.etag), (6, 1, 1));
}

#[test]
fn times_and_versions_follow_each_property() {
    let mut twin = Twin::default();
    assert!(twin.report(&object(json!({"a": 1, "b": {"c": 1, "d": 1}})), 10));
    assert!(twin.report(&object(json!({"b": {"c": 2}})), 20));
    let updated = &twin.reported.updated;
    let of = |path: &[&str]| {
        let found = path.iter().fold(updated, |at, key| &at.below[*key]);
        (found.ms, found.version)
    };
    assert_eq!((of(&[]), of(&["a"]), of(&["b"])), ((20, 3), (10, 2), (20, 3)));
    assert_eq!((of(&["b", "c"]), of(&["b", "d"])), ((20, 3), (10, 2)));
    assert!(twin.report(&object(json!({"b": null})), 30));
    assert!(!twin.reported.updated.below.contains_key("b"));
}

#[test]
fn a_service_changes_both_sections_at_once_or_none() {
    let mut twin = Twin::default();
    let (tags, desired) = (object(json!({"room": 7})), object(json!({"on": true})));
    assert!(twin.change((Some(&tags), Some(&desired)), false, 40, 1));
    assert_eq!((twin.version, twin.etag, twin.desired.version), (2, 40, 2));
    assert!(twin.change((Some(&object(json!({"floor": 1}))), None), false, 41, 2));
    assert_eq!(
        (&twin.tags, twin.desired.version),
        (&object(json!({"room": 7, "floor": 1})), 2)
    );

    let before = twin.clone();
    let large = object(json!({"text": vec!["x".repeat(4000); 3]}));
    assert!(!twin.change((Some(&large), Some(&object(json!({"on": false})))), false, 42, 3));
    assert_eq!(twin, before);

    assert!(twin.change((Some(&Object::new()), None), true, 43, 4));
    assert_eq!((twin.tags.len(), twin.desired.version), (0, 2));
}

#[test]
fn a_bound_is_on_what_is_stored_and_not_on_what_comes() {
    let mut twin = Twin::default();
    let part = |key: &str| object(json!({ key: vec!["y".repeat(4000); 4] }));
    assert!(twin.report(&part("a"), 1) && twin.report(&part("b"), 2));
    assert!(!twin.report(&part("c"), 3), "16,001 bytes more than fit");
    assert_eq!(twin.reported.version, 3);
    assert!(twin.report(&object(json!({"a": null})), 4) && twin.report(&part("c"), 5));
    assert_eq!(
        size_bytes(&object(
            json!({"k\u{1}": "é", "n": 1.5, "b": false, "o": {"z": null}})
        )),
        1 + 2 + 1 + 8 + 1 + 4 + 1 + 1
    );
}

#[test]
fn what_counts_nothing_has_an_end_as_well() {
    for value in [
        json!("\u{1}".repeat(4_096)),
        json!(vec![""; 10_000]),
        json!(vec![json!({}); 10_000]),
    ] {
        let mut twin = Twin::default();
        let mut fits = |number: &u64| twin.report(&object(json!({ format!("k{number}"): value })), *number);
        assert!((1..100).contains(&(0..1_000).take_while(|number| fits(number)).count()));
        assert!(text_of(&twin.reported.content).len() <= TEXT_BYTES_MAX);
    }
}

#[test]
fn the_last_changes_are_kept_and_bounded() {
    let mut twin = Twin::default();
    for number in 0..20 {
        assert!(twin.change((None, Some(&object(json!({"n": number})))), false, number, number));
    }
    let versions: Vec<u64> = twin.recent.iter().map(|change| change.version).collect();
    assert_eq!(versions, (14..=21).collect::<Vec<_>>());
    let large = object(json!({ "t": vec!["z".repeat(4000); 5] }));
    for etag in 0..3 {
        assert!(twin.change((None, Some(&large)), false, etag, 1));
    }
    assert_eq!(twin.recent.len(), 1);
}

#[test]
fn documents_that_may_not_come_in() {
    let nested = |levels: usize| (1..levels).fold(json!({"leaf": 1}), |below, _| json!({ "n": below }));
    assert_eq!(check(&object(nested(10))), Ok(()));
    assert_eq!(check(&object(nested(11))), Err(TwinFault::Depth));
    for (document, fault) in [
        (json!({"": 1}), TwinFault::KeyLength),
        (json!({"k".repeat(1025): 1}), TwinFault::KeyLength),
        (json!({"a.b": 1}), TwinFault::KeyCharacter("a.b".into())),
        (json!({"a": {"$b": 1}}), TwinFault::KeyCharacter("$b".into())),
        (json!({"a b": 1}), TwinFault::KeyCharacter("a b".into())),
        (json!({"a\n": 1}), TwinFault::KeyCharacter("a\n".into())),
        (json!({"a": "t".repeat(4097)}), TwinFault::TextLength),
        (json!({"a": INTEGER_MAX + 1}), TwinFault::Integer),
        (json!({"a": -INTEGER_MAX - 2}), TwinFault::Integer),
        (json!({"a": u64::MAX}), TwinFault::Integer),
        (json!({"a": [1, null]}), TwinFault::NullInArray),
    ] {
        assert_eq!(check(&object(document.clone())), Err(fault), "{document}");
    }
    let good = json!({"a": null, "i": INTEGER_MAX, "j": -INTEGER_MAX - 1, "f": 1e300, "t": "t".repeat(4096), "l": [[1], {"x": "y"}]});
    assert_eq!(check(&object(good)), Ok(()));
}

fn documents() -> impl Strategy<Value = Object> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-9i64..9).prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::String),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::btree_map("[a-c]", inner, 0..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    });
    prop::collection::btree_map("[a-c]", value, 0..4).prop_map(|map| map.into_iter().collect())
}

fn without_nulls(object: &Object) -> Object {
    let keep = |(key, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::Object(inner) => Some((key.clone(), Value::Object(without_nulls(inner)))),
        other => Some((key.clone(), other.clone())),
    };
    object.iter().filter_map(keep).collect()
}

fn set(path: &str, value: Value) -> (Vec<String>, Value) {
    let steps = path.split('.').filter(|step| !step.is_empty());
    (steps.map(str::to_owned).collect(), value)
}

fn configured(twin: &mut Twin, settings: &[(Vec<String>, Value)], marks: Option<&Marks>) -> bool {
    let settings: Vec<_> = settings
        .iter()
        .map(|(path, value)| (&path[..], value.clone()))
        .collect();
    twin.configure(&settings, marks, 77, 9)
}

#[test]
fn a_configuration_puts_parts_in_place_and_tells_only_what_is_different() {
    let mut twin = Twin::default();
    let desired = object(json!({"own": 1, "camera": {"fps": 5, "old": true}}));
    assert!(twin.change((None, Some(&desired)), false, 2, 1));
    let settings = [
        set("camera", json!({"fps": 5, "mode": {"night": true, "day": null}})),
        set("a.b", json!(1)),
        set("own.below", json!(2)),
    ];
    let marks = Marks::from([(
        "c".to_owned(),
        Mark {
            version: 3,
            is_applied: true,
        },
    )]);
    assert!(configured(&mut twin, &settings, Some(&marks)));
    assert_eq!(
        Value::Object(twin.desired.content.clone()),
        json!({"own": {"below": 2}, "camera": {"fps": 5, "mode": {"night": true}}, "a": {"b": 1}})
    );
    let told: Value = serde_json::from_str(&twin.recent.last().unwrap().patch).unwrap();
    assert_eq!(
        told,
        json!({"own": {"below": 2}, "camera": {"old": null, "mode": {"night": true}}, "a": {"b": 1}})
    );
    assert_eq!((twin.desired.version, twin.version, twin.etag), (3, 3, 77));
    let before = twin.clone();
    assert!(configured(&mut twin, &settings, Some(&marks)));
    assert_eq!(twin, before, "the same again changes nothing");
    assert!(configured(
        &mut twin,
        &[set("a", Value::Null)],
        Some(&Marks::new())
    ));
    assert!(!twin.desired.content.contains_key("a") && twin.configurations.is_empty());
    assert!(configured(&mut twin, &[set("", json!({"x": 1}))], None));
    assert_eq!(Value::Object(twin.desired.content.clone()), json!({"x": 1}));
    let before = twin.clone();
    let text = "x".repeat(4000);
    let large: Vec<_> = (0..9)
        .map(|place| set(&format!("p{place}"), json!(text)))
        .collect();
    assert!(!configured(&mut twin, &large, Some(&marks)));
    assert_eq!(twin, before);
}

proptest! {
    #[test]
    fn whoever_merges_what_configurations_tell_has_what_is_desired(
        first in documents(),
        second in documents(),
        third in documents(),
    ) {
        let mut twin = Twin::default();
        prop_assert!(twin.change((None, Some(&first)), false, 2, 1));
        let settings = [set("a", Value::Object(second.clone())), set("", Value::Object(third.clone())),
            set("b.c", Value::Object(second))];
        prop_assert!(configured(&mut twin, &settings, None));
        let mut device = Section::default();
        for change in &twin.recent {
            device.merge(&serde_json::from_str(&change.patch).unwrap(), 0);
        }
        prop_assert_eq!(&device.content, &twin.desired.content);
        let before = twin.clone();
        prop_assert!(configured(&mut twin, &settings, None));
        prop_assert_eq!(twin.desired.version, before.desired.version);
    }

    #[test]
    fn whoever_merges_what_a_replacement_tells_has_what_was_asked_for(
        first in documents(),
        second in documents(),
    ) {
        let mut twin = Twin::default();
        prop_assert!(twin.change((None, Some(&first)), true, 2, 1));
        prop_assert!(twin.change((None, Some(&second)), true, 3, 2));
        prop_assert_eq!(&twin.desired.content, &without_nulls(&second));
        // A device that has merged every note since it read the twin when it was empty.
        let mut device = Section::default();
        for change in &twin.recent {
            device.merge(&serde_json::from_str(&change.patch).unwrap(), 0);
        }
        prop_assert_eq!(&device.content, &twin.desired.content);
    }

    #[test]
    fn a_twin_is_read_back_as_it_was_written(first in documents(), second in documents()) {
        let mut twin = Twin::default();
        prop_assert!(twin.report(&first, 7) && twin.change((Some(&second), Some(&first)), false, 9, 8));
        let text = serde_json::to_string(&twin).unwrap();
        prop_assert_eq!(serde_json::from_str::<Twin>(&text).unwrap(), twin);
    }
}
