//! What aggregates come to, whatever the order in which rows and parts of results meet.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Statement {
    Statement::parse(text).expect(text)
}

fn gather(statement: &Statement, rows: &[Value]) -> Groups {
    let mut groups = Groups::new();
    for row in rows {
        groups.add(statement, row).expect("few groups");
    }
    groups
}

fn answer(text: &str, rows: &[Value]) -> Value {
    let statement = parse(text);
    assert!(statement.is_aggregate(), "{text}");
    Value::Array(gather(&statement, rows).rows(&statement))
}

fn fleet() -> Vec<Value> {
    vec![
        json!({"deviceId": "a", "status": "enabled", "n": 1, "t": "x", "tags": {"p": 1}}),
        json!({"deviceId": "b", "status": "enabled", "n": 2.5, "t": "y", "tags": {"p": 1.0}}),
        json!({"deviceId": "c", "status": "disabled", "n": "7", "t": "w", "tags": {"p": null}}),
        json!({"deviceId": "d", "n": null, "t": "2021-01-01T00:00:00Z", "tags": {"p": {"q": [2.0]}}}),
        json!({"deviceId": "e", "status": "enabled", "n": 4}),
    ]
}

#[test]
fn aggregates_without_groups_make_one_row() {
    let all = "SELECT COUNT() AS c, SUM(n) AS s, AVG(n) AS a, MIN(n) AS l, MAX(n) AS h FROM devices";
    assert_eq!(
        answer(all, &fleet()),
        json!([{"c": 5, "s": 7.5, "a": 2.5, "l": 1, "h": 4}])
    );
    assert_eq!(answer(all, &[]), json!([{"c": 0}]));
    let some = format!("{all} WHERE n = 'none'");
    assert_eq!(answer(&some, &fleet()), json!([{"c": 0}]));
    assert_eq!(
        answer("SELECT COUNT(), COUNT(*) FROM devices", &fleet()),
        json!([{"$1": 5, "$2": 5}])
    );
    assert_eq!(answer("SELECT TOP 0 COUNT() FROM devices", &fleet()), json!([]));
    assert_eq!(answer("SELECT TOP 0 COUNT() FROM devices", &[]), json!([]));
}

#[test]
fn integers_stay_integers() {
    for (numbers, expected) in [
        (vec![json!(1), json!(2)], json!({"s": 3, "a": 1.5})),
        (vec![json!(1), json!(3)], json!({"s": 4, "a": 2})),
        (vec![json!(1), json!(1.0)], json!({"s": 2.0, "a": 1.0})),
        (
            vec![json!(i64::MAX), json!(1)],
            json!({"s": 9_223_372_036_854_775_808.0, "a": 4_611_686_018_427_387_904.0}),
        ),
        (
            vec![json!(i64::MAX), json!(1), json!(-1)],
            json!({"s": i64::MAX, "a": 3_074_457_345_618_258_602.333}),
        ),
        (vec![json!(1e308), json!(1e308)], json!({})),
        (vec![json!(true), json!("1"), json!(null)], json!({})),
    ] {
        let rows: Vec<Value> = numbers.into_iter().map(|n| json!({"n": n})).collect();
        assert_eq!(
            answer("SELECT SUM(n) AS s, AVG(n) AS a FROM devices", &rows),
            json!([expected])
        );
    }
}

#[test]
fn the_least_is_a_number_if_there_is_one() {
    let of = |values: &[Value]| {
        let rows: Vec<Value> = values.iter().map(|value| json!({"v": value})).collect();
        answer("SELECT MIN(v) AS l, MAX(v) AS h FROM devices", &rows)
    };
    assert_eq!(
        of(&[json!("b"), json!("a"), json!("c")]),
        json!([{"l": "a", "h": "c"}])
    );
    assert_eq!(of(&[json!("b"), json!(7), json!("c")]), json!([{"l": 7, "h": 7}]));
    assert_eq!(
        of(&[json!(7), json!("b"), json!(-1.5)]),
        json!([{"l": -1.5, "h": 7}])
    );
    assert_eq!(
        of(&[json!(true), json!(null), json!({}), json!([1])]),
        json!([{}])
    );
    let times = [
        "2021-01-01T00:00:00Z",
        "2021-01-01T00:00:00.5Z",
        "2020-12-31T00:00:00Z",
    ];
    let rows: Vec<Value> = times.iter().map(|time| json!(time)).collect();
    assert_eq!(of(&rows), json!([{"l": times[2], "h": times[1]}]));
}

#[test]
fn rows_group_by_what_they_have_there() {
    for (text, expected) in [
        (
            "SELECT status, COUNT() AS n FROM devices GROUP BY status",
            json!([{"status": "disabled", "n": 1}, {"status": "enabled", "n": 3}, {"n": 1}]),
        ),
        (
            "SELECT COUNT() AS n, STATUS AS s FROM devices WHERE n != 4 GROUP BY Status",
            json!([{"s": "disabled", "n": 1}, {"s": "enabled", "n": 2}, {"n": 1}]),
        ),
        // 1 and 1.0 are equal; `null` is a value, and no path is none.
        (
            "SELECT tags.p, COUNT() AS n FROM devices GROUP BY tags.p",
            json!([{"p": 1, "n": 2}, {"p": null, "n": 1}, {"p": {"q": [2]}, "n": 1}, {"n": 1}]),
        ),
        (
            "SELECT status FROM devices GROUP BY status",
            json!([{"status": "disabled"}, {"status": "enabled"}, {}]),
        ),
        (
            "SELECT TOP 1 status FROM devices GROUP BY status",
            json!([{"status": "disabled"}]),
        ),
        (
            "SELECT MAX(n) FROM devices WHERE status = 'enabled' GROUP BY status, tags.p",
            json!([{"$1": 2.5}, {"$1": 4}]),
        ),
        (
            "SELECT COUNT() FROM devices WHERE deviceId = 'none' GROUP BY status",
            json!([]),
        ),
    ] {
        assert_eq!(answer(text, &fleet()), expected, "{text}");
    }
}

#[test]
fn floats_of_a_group_are_told_to_the_last_bit() {
    for float in [
        0.1,
        5e-324,
        1.797_693_134_862_315_7e308,
        -2.225_073_858_507_201e-308,
        123_456_789.012_345_67,
    ] {
        let expected = json!([{"v": float}]);
        assert_eq!(
            answer("SELECT v FROM devices GROUP BY v", &[json!({"v": float})]),
            expected
        );
    }
}

#[test]
fn what_is_too_deep_to_group_by_is_not_there() {
    let nested = |depth: usize| (1..depth).fold(json!(1), |inner, _| json!([inner]));
    let text = "SELECT v FROM devices GROUP BY v";
    let deepest = json!({"v": nested(KEY_DEPTH_MAX)});
    assert_eq!(answer(text, std::slice::from_ref(&deepest)), json!([deepest]));
    assert_eq!(
        answer(text, &[json!({"v": nested(KEY_DEPTH_MAX + 1)})]),
        json!([{}])
    );
}

#[test]
fn there_are_not_too_many_groups() {
    let statement = parse("SELECT v, COUNT() AS c FROM devices GROUP BY v");
    let mut groups = Groups::new();
    for v in 0..GROUPS_MAX {
        assert_eq!(groups.add(&statement, &json!({"v": v})), Ok(()));
    }
    assert_eq!(groups.add(&statement, &json!({"v": 0})), Ok(()));
    assert_eq!(
        groups.add(&statement, &json!({"v": GROUPS_MAX})),
        Err(TooManyGroups)
    );
    assert_eq!(groups.rows(&statement).len(), GROUPS_MAX);
    let other = gather(&statement, &[json!({"v": "other"})]);
    assert_eq!(groups.clone().merge(other), Err(TooManyGroups));
    let known = gather(&statement, &[json!({"v": 0})]);
    assert_eq!(groups.merge(known), Ok(()));
    assert!(TooManyGroups.to_string().contains("1000 groups"));
}

#[test]
fn groups_are_not_too_large() {
    let large = |n: usize| json!({"v": format!("{n}{}", "x".repeat(GROUPS_BYTES_MAX / 4)), "w": 1});
    for text in [
        "SELECT v FROM devices GROUP BY v",
        "SELECT COUNT(), MIN(v) FROM devices GROUP BY v",
    ] {
        let statement = parse(text);
        let mut groups = Groups::new();
        let ends: Vec<bool> = (0..5)
            .map(|n| groups.add(&statement, &large(n)).is_ok())
            .collect();
        assert!(ends[0] && !ends[4], "{ends:?}");
    }
    // A text that another one drives out counts no longer.
    let statement = parse("SELECT MIN(v) FROM devices");
    let rows: Vec<Value> = (0..9).rev().map(large).collect();
    let mut groups = gather(&statement, &rows);
    assert!((GROUPS_BYTES_MAX / 4..GROUPS_BYTES_MAX / 2).contains(&groups.bytes));
    groups.add(&statement, &json!({"v": 1})).expect("it is small");
    assert_eq!(groups.bytes, gather(&statement, &[json!({"v": 1})]).bytes);
}

#[test]
fn results_of_different_statements_do_no_harm() {
    let texts = [
        "SELECT COUNT() FROM devices",
        "SELECT SUM(n), MIN(n), MAX(n) FROM devices",
        "SELECT MAX(n), COUNT() FROM devices",
        "SELECT status, MIN(t) FROM devices GROUP BY status",
        "SELECT * FROM devices",
    ];
    for one in texts.map(parse) {
        for other in texts.map(parse) {
            let mut groups = gather(&one, &fleet());
            groups.merge(gather(&other, &fleet())).expect("few groups");
            assert!(!groups.rows(&one).is_empty() && !groups.rows(&other).is_empty());
        }
    }
    let odd = Groups {
        groups: BTreeMap::from([("no key".to_owned(), Vec::new()), ("[]".to_owned(), Vec::new())]),
        bytes: 0,
    };
    assert_eq!(odd.rows(&parse(texts[3])), [json!({}), json!({})]);
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3i8..3).prop_map(|n| Value::from(f64::from(n) / 2.0)),
        "[a-c]{0,2}".prop_map(Value::from),
        "2021-05-07T00:50:38(A|\\.[05]{0,2})?Z?".prop_map(Value::from),
        Just(json!({"a": [1]})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_meet_as_if_they_had_been_one(
        values in prop::collection::vec((prop::option::of(value()), 0..3u8, 0..4usize), 0..30),
        is_grouped in any::<bool>(),
    ) {
        let columns = "SELECT COUNT() AS c, SUM(v) AS s, AVG(v) AS a, MIN(v) AS l, MAX(v) AS h";
        let group = if is_grouped { "GROUP BY g, v" } else { "" };
        let statement = parse(&format!("{columns} FROM devices WHERE g > 0 OR v != 7 {group}"));
        let rows: Vec<(Value, usize)> = values
            .into_iter()
            .map(|(v, g, part)| match v {
                Some(v) => (json!({"g": g, "v": v}), part),
                None => (json!({"g": g}), part),
            })
            .collect();
        let mut parts = vec![Groups::new(); 4];
        let mut whole = Groups::new();
        for (row, part) in &rows {
            whole.add(&statement, row).expect("few groups");
            parts[*part].add(&statement, row).expect("few groups");
        }
        let mut merged = Groups::new();
        for part in parts {
            // They travel.
            let text = serde_json::to_string(&part).expect("plain data");
            let _: Groups = serde_json::from_str(&text).expect("plain data");
            merged.merge(part).expect("few groups");
        }
        prop_assert_eq!(&merged, &whole);
        let reversed: Vec<Value> = rows.into_iter().rev().map(|(row, _)| row).collect();
        prop_assert_eq!(gather(&statement, &reversed), whole);
    }
}
