//! Texts and rows that nobody thought of: nothing panics, and what is read says the same twice.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What query texts are made of.
const SOUP: &[&str] = &[
    "SELECT",
    "TOP",
    "*",
    "FROM",
    "devices",
    "devices.modules",
    "devices.jobs",
    "WHERE",
    "GROUP BY",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "NIN",
    "=",
    "!=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "+",
    "-",
    "/",
    "%",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    ";",
    "'a'",
    "\"b\"",
    "''",
    "0",
    "1",
    "2.5",
    "1e308",
    "9223372036854775807",
    "true",
    "false",
    "null",
    "a",
    "b",
    "a.b",
    "tags",
    "[[x y]]",
    "COUNT()",
    "SUM(a)",
    "AVG(a)",
    "MIN(a)",
    "MAX(b)",
    "IS_DEFINED(a)",
    "CONCAT(",
    "ABS(",
    "SUBSTRING(",
    "LENGTH(",
    "POWER(",
    "AS_NUMBER(",
    "IS_NULL(",
    "\\",
    "'",
    "[[",
    "é",
    "\u{0}",
];

fn exercise(text: &str, row: &Value) {
    if let Ok(statement) = Statement::parse(text) {
        assert_eq!(Statement::parse(text).as_ref(), Ok(&statement));
        let admits = statement.admits(row);
        assert_eq!(statement.admits(row), admits);
        assert_eq!(statement.project(row), statement.project(row));
        statement.mentions("a");
        let mut groups = Groups::new();
        groups.add(&statement, row).expect("one group");
        assert!(groups.rows(&statement).len() <= 1);
    }
    if let Ok(condition) = Condition::parse(text) {
        assert_eq!(condition.admits(row), condition.admits(row));
        condition.mentions("a");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("2021-05-07T00:50:38.0543092Z")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Conditions that are right, whatever they mean.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "b",
        "a.b",
        "a[0]",
        "1",
        "-2.5",
        "9223372036854775807",
        "1e308",
        "0",
        "'a'",
        "''",
        "'12'",
        "null",
        "true",
        "false",
        "'2021-05-07T00:50:38Z'",
        "IS_DEFINED(a.b)",
    ]);
    let operators = prop::sample::select(vec![
        "AND", "OR", "=", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%",
    ]);
    let one = prop::sample::select(vec![
        "NOT",
        "-",
        "IS_NULL",
        "IS_BOOL",
        "IS_NUMBER",
        "IS_STRING",
        "IS_OBJECT",
        "IS_ARRAY",
        "IS_PRIMITIVE",
        "LENGTH",
        "LOWER",
        "UPPER",
        "ABS",
        "CEILING",
        "FLOOR",
        "SIGN",
        "SQRT",
        "SQUARE",
        "EXP",
        "AS_NUMBER",
    ]);
    let two = prop::sample::select(vec![
        "STARTSWITH",
        "ENDSWITH",
        "CONTAINS",
        "INDEX_OF",
        "SUBSTRING",
        "CONCAT",
        "POWER",
    ]);
    let leaf = leaf.prop_map(str::to_owned).boxed();
    leaf.prop_recursive(5, 40, 3, move |inner| {
        prop_oneof![
            (inner.clone(), operators.clone(), inner.clone())
                .prop_map(|(a, op, b)| format!("(({a}) {op} ({b}))")),
            (one.clone(), inner.clone()).prop_map(|(name, a)| format!("({name}({a}))")),
            (two.clone(), inner.clone(), inner.clone()).prop_map(|(name, a, b)| format!("{name}({a}, {b})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("SUBSTRING({a}, {b}, {c})")),
            inner.prop_map(|a| format!("(({a}) NOT IN [1, 'a', null, -1.5])")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}", row in value()) {
        exercise(&text, &row);
        exercise(&format!("SELECT * FROM devices WHERE {text}"), &row);
    }

    #[test]
    fn any_soup_is_read_or_refused(
        tokens in prop::collection::vec(prop::sample::select(SOUP), 0..40),
        row in value(),
    ) {
        let text = tokens.join(" ");
        exercise(&text, &row);
        exercise(&format!("SELECT {text}"), &row);
        exercise(&format!("SELECT a, b FROM devices WHERE {text}"), &row);
        if let Err(error) = Statement::parse(&text) {
            prop_assert!(error.position <= text.len());
        }
    }

    #[test]
    fn any_condition_says_something_of_any_row(text in condition(), row in value()) {
        match Condition::parse(&text) {
            Ok(_) => exercise(&text, &row),
            Err(error) => prop_assert!(error.message.contains("levels"), "{}: {}", text, error),
        }
        // Of a condition and its opposite, one is true at most.
        let opposite = format!("NOT ({text})");
        if let (Ok(condition), Ok(opposite)) = (Condition::parse(&text), Condition::parse(&opposite)) {
            prop_assert!(!(condition.admits(&row) && opposite.admits(&row)));
        }
    }
}
