//! What is no query, where it stops being one, and what may be written in more than one way.

use super::*;

fn refusal(text: &str) -> String {
    match Statement::parse(text) {
        Err(error) => error.to_string(),
        Ok(statement) => panic!("{text}: {statement:?}"),
    }
}

#[test]
fn a_refusal_says_where_and_why() {
    for (text, position, message) in [
        ("", 0, "expected SELECT, found the end"),
        ("UPDATE devices", 0, "expected SELECT, found 'UPDATE'"),
        ("SELECT", 6, "expected *, a path or an aggregate, found the end"),
        ("SELECT FROM devices", 7, "expected a path, found 'FROM'"),
        ("SELECT * WHERE a = 1", 9, "expected FROM, found 'WHERE'"),
        ("SELECT *, a FROM devices", 8, "expected FROM, found ','"),
        ("SELECT a, FROM devices", 10, "expected a path, found 'FROM'"),
        ("SELECT a b FROM devices", 9, "expected FROM, found 'b'"),
        ("SELECT a AS FROM devices", 17, "expected FROM, found 'devices'"),
        ("SELECT a AS 'b' FROM devices", 12, "expected a name, found ''b''"),
        ("SELECT a.'b' FROM devices", 9, "expected a name, found ''b''"),
        (
            "SELECT 1 FROM devices",
            7,
            "expected *, a path or an aggregate, found '1'",
        ),
        ("SELECT a + 1 FROM devices", 9, "expected FROM, found '+'"),
        (
            "SELECT TOP a FROM devices",
            11,
            "expected a number of rows, found 'a'",
        ),
        (
            "SELECT TOP 1.5 * FROM devices",
            11,
            "expected a number of rows, found '1.5'",
        ),
        (
            "SELECT TOP -1 * FROM devices",
            11,
            "expected a number of rows, found '-'",
        ),
        ("SELECT COUNT(a) FROM devices", 13, "expected ')', found 'a'"),
        ("SELECT SUM() FROM devices", 11, "expected a path, found ')'"),
        ("SELECT SUM(1) FROM devices", 11, "expected a path, found '1'"),
        (
            "SELECT MEDIAN(a) FROM devices",
            7,
            "expected COUNT, SUM, AVG, MIN or MAX, found 'MEDIAN'",
        ),
        ("SELECT * FROM", 13, "expected devices, found the end"),
        ("SELECT * FROM twins", 14, "expected devices, found 'twins'"),
        (
            "SELECT * FROM devices.twins",
            22,
            "expected modules or jobs, found 'twins'",
        ),
        (
            "SELECT * FROM devices d",
            22,
            "expected WHERE, GROUP BY or the end, found 'd'",
        ),
        ("SELECT * FROM devices;;", 22, "expected the end, found ';'"),
        (
            "SELECT * FROM devices WHERE",
            27,
            "expected a value, a path or a function, found the end",
        ),
        (
            "SELECT * FROM devices WHERE a =",
            31,
            "expected a value, a path or a function, found the end",
        ),
        (
            "SELECT * FROM devices WHERE a = 1 b",
            34,
            "expected an operator or the end, found 'b'",
        ),
        (
            "SELECT * FROM devices WHERE a = 1 = 1",
            34,
            "expected an operator or the end, found '='",
        ),
        (
            "SELECT * FROM devices WHERE a == 1",
            31,
            "expected a value, a path or a function, found '='",
        ),
        (
            "SELECT * FROM devices WHERE a AND",
            33,
            "expected a value, a path or a function, found the end",
        ),
        (
            "SELECT * FROM devices WHERE AND a",
            28,
            "expected a path, found 'AND'",
        ),
        (
            "SELECT * FROM devices WHERE (a = 1",
            34,
            "expected ')', found the end",
        ),
        (
            "SELECT * FROM devices WHERE a = 1)",
            33,
            "expected an operator or the end, found ')'",
        ),
        (
            "SELECT * FROM devices WHERE a = NOT (b)",
            32,
            "expected a path, found 'NOT'",
        ),
        (
            "SELECT * FROM devices WHERE a = 'x",
            32,
            "expected a text with a quote behind it, found the end",
        ),
        (
            "SELECT * FROM devices WHERE a = #",
            32,
            "expected a word, a value or an operator, found '#'",
        ),
        // What stands further left is told first.
        (
            "SELECT * FORM devices WHERE a = 'x",
            9,
            "expected FROM, found 'FORM'",
        ),
        (
            "SELECT * FROM devices WHERE a IN 1",
            33,
            "expected a list of values in brackets, found '1'",
        ),
        (
            "SELECT * FROM devices WHERE a IN []",
            34,
            "expected a value, found ']'",
        ),
        (
            "SELECT * FROM devices WHERE a IN [b]",
            34,
            "expected a value, found 'b'",
        ),
        (
            "SELECT * FROM devices WHERE a IN [1,]",
            36,
            "expected a value, found ']'",
        ),
        (
            "SELECT * FROM devices WHERE a IN [-'1']",
            35,
            "expected a number, found ''1''",
        ),
        (
            "SELECT * FROM devices WHERE a IN [1)",
            35,
            "expected ']', found ')'",
        ),
        (
            "SELECT * FROM devices WHERE a NOT b",
            34,
            "expected IN, found 'b'",
        ),
        (
            "SELECT * FROM devices WHERE a[b] = 1",
            30,
            "expected a place in an array, found 'b'",
        ),
        (
            "SELECT * FROM devices WHERE a[-1] = 1",
            30,
            "expected a place in an array, found '-'",
        ),
        (
            "SELECT * FROM devices WHERE a[1 = 1",
            32,
            "expected ']', found '='",
        ),
        (
            "SELECT * FROM devices WHERE a[[b] = 1",
            29,
            "expected [[ with ]] behind it, found the end",
        ),
        (
            "SELECT * FROM devices WHERE FOO(a)",
            28,
            "expected a function of conditions, found 'FOO'",
        ),
        (
            "SELECT * FROM devices WHERE COUNT() > 1",
            28,
            "expected a function of conditions, found 'COUNT'",
        ),
        (
            "SELECT * FROM devices WHERE is_null()",
            28,
            "expected 1 argument(s) of IS_NULL, found 0",
        ),
        (
            "SELECT * FROM devices WHERE POWER(a)",
            28,
            "expected 2 argument(s) of POWER, found 1",
        ),
        (
            "SELECT * FROM devices WHERE SUBSTRING(a)",
            28,
            "expected 2 to 3 argument(s) of SUBSTRING, found 1",
        ),
        (
            "SELECT * FROM devices WHERE CONCAT(a)",
            28,
            "expected at least 2 argument(s) of CONCAT, found 1",
        ),
        (
            "SELECT * FROM devices WHERE ABS(a b)",
            34,
            "expected ')', found 'b'",
        ),
        (
            "SELECT * FROM devices WHERE IS_DEFINED(1)",
            39,
            "expected a path, found '1'",
        ),
        (
            "SELECT * FROM devices WHERE IS_DEFINED(a = 1)",
            41,
            "expected ')', found '='",
        ),
        (
            "SELECT a, b AS a FROM devices",
            15,
            "expected columns of different names, found a second 'a'",
        ),
        (
            "SELECT x.a, y.a FROM devices",
            12,
            "expected columns of different names, found a second 'a'",
        ),
        (
            "SELECT a AS [[$2]], COUNT() FROM devices GROUP BY a",
            20,
            "expected columns of different names, found a second '$2'",
        ),
        (
            "SELECT a, COUNT() FROM devices",
            7,
            "expected only aggregates and what is grouped by, found 'a'",
        ),
        (
            "SELECT a, b FROM devices GROUP BY a",
            10,
            "expected only aggregates and what is grouped by, found 'b'",
        ),
        (
            "SELECT x.A FROM devices GROUP BY x.a",
            7,
            "expected only aggregates and what is grouped by, found 'A'",
        ),
        (
            "SELECT * FROM devices GROUP BY a",
            22,
            "expected columns to group, and not *, found GROUP BY",
        ),
        ("SELECT a FROM devices GROUP a", 28, "expected BY, found 'a'"),
        (
            "SELECT a FROM devices GROUP BY",
            30,
            "expected a path, found the end",
        ),
        (
            "SELECT a FROM devices GROUP BY a b",
            33,
            "expected a comma or the end, found 'b'",
        ),
        (
            "SELECT a FROM devices GROUP BY a WHERE b = 1",
            33,
            "expected a comma or the end, found 'WHERE'",
        ),
        (
            "SELECT a FROM devices.jobs",
            7,
            "expected * from devices.jobs, found columns",
        ),
        (
            "SELECT COUNT() FROM devices.jobs",
            7,
            "expected * from devices.jobs, found columns",
        ),
        (
            "SELECT * FROM devices.jobs GROUP BY a",
            27,
            "expected WHERE or the end, found 'GROUP'",
        ),
    ] {
        assert_eq!(
            refusal(text),
            format!("at character {position}: {message}"),
            "{text}"
        );
    }
}

#[test]
fn case_spaces_and_a_semicolon_do_not_matter() {
    let one = "SELECT TOP 3 a.b AS c, d FROM devices.modules WHERE NOT a.b IN [1] AND TRUE OR x = NULL";
    let other = "select\ttop 3 a.b as c,d\nfrom Devices.Modules where not a . b in(1)and true or x=null ; ";
    let expected = Statement::parse(one).expect(one);
    assert_eq!(Statement::parse(other), Ok(expected));
    for (one, other) in [
        ("a NIN [1, 2]", "a NOT IN (1, 2)"),
        ("a <> 1", "a != 1"),
        ("STARTSWITH(a, 'b')", "starts_with(a, \"b\")"),
        ("ENDSWITH(a, 'b')", "Ends_With([[a]], 'b')"),
        ("a = 10", "a = 0x0A"),
        ("devices.a = 1", "a = 1"),
        ("FROM devices WHERE a = 1", "a = 1;"),
    ] {
        assert_eq!(
            Condition::parse(one).expect(one),
            Condition::parse(other).expect(other)
        );
    }
}

#[test]
fn conditions_may_name_their_source() {
    for (text, source) in [
        ("moduleId = 'm'", Source::Devices),
        ("*", Source::Devices),
        ("from devices.modules where moduleId = 'm'", Source::Modules),
        (
            "FROM devices.modules WHERE devices.modules.moduleId = 'm'",
            Source::Modules,
        ),
        ("FROM devices.modules WHERE *", Source::Modules),
    ] {
        let condition = Condition::parse(text).expect(text);
        assert_eq!(condition.source(), source, "{text}");
        assert!(condition.admits(&serde_json::json!({"moduleId": "m"})), "{text}");
    }
    for (text, message) in [
        (
            "",
            "at character 0: expected a value, a path or a function, found the end",
        ),
        ("* OR a", "at character 2: expected the end, found 'OR'"),
        (
            "FROM devices.modules",
            "at character 20: expected WHERE, found the end",
        ),
        (
            "a = 1 GROUP BY a",
            "at character 6: expected an operator or the end, found 'GROUP'",
        ),
        (
            "SELECT * FROM devices",
            "at character 0: expected a path, found 'SELECT'",
        ),
    ] {
        let refused = Condition::parse(text).map_err(|error| error.to_string());
        assert_eq!(refused, Err(message.to_owned()), "{text}");
    }
}

#[test]
fn names_may_be_words_of_the_language_behind_a_dot() {
    let statement = "SELECT tags.from, tags.[[where]] AS select FROM devices WHERE tags.and = [[not]]";
    let statement = Statement::parse(statement).expect(statement);
    let row = serde_json::json!({"tags": {"from": 1, "where": 2, "and": 3}, "not": 3});
    assert!(statement.admits(&row));
    assert_eq!(
        statement.project(&row),
        serde_json::json!({"from": 1, "select": 2})
    );
}

#[test]
fn mentions_are_found_wherever_they_are() {
    for (text, expected) in [
        ("SELECT * FROM devices", true),
        ("SELECT a FROM devices", false),
        ("SELECT a.x FROM devices", true),
        ("SELECT X FROM devices", true),
        ("SELECT a.X FROM devices", false),
        ("SELECT a AS x FROM devices", false),
        ("SELECT SUM(a.x.b) FROM devices", true),
        ("SELECT COUNT() FROM devices GROUP BY a.x", true),
        ("SELECT a FROM devices WHERE b = 'x' AND c IN ['x']", false),
        ("SELECT a FROM devices WHERE b = 1 OR NOT IS_DEFINED(c.x)", true),
        ("SELECT a FROM devices WHERE 1 < 2 + -ABS(b.x)", true),
        ("SELECT a FROM devices WHERE b.x IN [1]", true),
        ("SELECT a FROM devices WHERE b[0].x = 1", true),
    ] {
        assert_eq!(
            Statement::parse(text).expect(text).mentions("x"),
            expected,
            "{text}"
        );
    }
    let condition = Condition::parse("a.$metadata.b = 1").expect("a condition");
    assert!(condition.mentions("$metadata") && !condition.mentions("$version"));
    let place = ["properties", "desired", "$metadata"];
    for (text, expected) in [
        ("SELECT properties.desired FROM devices", true),
        ("SELECT properties.desired.a FROM devices", false),
        ("SELECT tags FROM devices", false),
        ("SELECT * FROM devices", true),
        (
            "SELECT tags FROM devices WHERE properties.desired.$metadata.a.$lastUpdated > 'x'",
            true,
        ),
    ] {
        assert_eq!(
            Statement::parse(text).expect(text).reads(&place),
            expected,
            "{text}"
        );
    }
}

fn is_refused_at(text: &str, position: usize, part: &str) {
    let error = Condition::parse(text).expect_err("it is beyond a bound");
    assert!(error.message.contains(part), "{error}");
    assert_eq!(error.position, position, "{error}");
}

#[test]
fn depth_is_bounded() {
    let most = EXPRESSION_DEPTH_MAX;
    for (open, close) in [
        ("(", ")"),
        ("NOT ", ""),
        ("-", ""),
        ("- ", ""),
        ("ABS(", ")"),
        ("NOT (", ")"),
    ] {
        let levels = if open == "NOT (" { most / 2 } else { most };
        let nested = |levels: usize| format!("{}a{}", open.repeat(levels), close.repeat(levels));
        let condition = Condition::parse(&nested(levels)).expect(open);
        condition.admits(&serde_json::json!({"a": 1}));
        let error = Condition::parse(&nested(levels + 1)).expect_err(open);
        assert!(
            error.message.starts_with("expected no more than 32 levels"),
            "{error}"
        );
        let all = open.repeat(QUERY_BYTES_MAX / open.len());
        assert!(Condition::parse(&all).is_err());
        assert!(Statement::parse(&format!("SELECT * FROM devices WHERE {}", &all[..16_000])).is_err());
        is_refused_at(&open.repeat(100_000), QUERY_BYTES_MAX, "at most 16384 bytes");
    }
}

#[test]
fn chains_are_as_long_as_the_text() {
    let row = serde_json::json!({"a": true, "n": 1});
    for (part, between, end) in [
        ("a", " AND ", ""),
        ("a", " OR ", ""),
        ("n", "+", " > 0"),
        ("n", "*", " = 1"),
        ("n", "-", " < 1"),
        ("n+n*n", "-", " > 1"),
        ("NOT NOT a", " AND ", ""),
    ] {
        let count = QUERY_BYTES_MAX / (part.len() + between.len()) - 2;
        let text = vec![part; count].join(between) + end;
        let condition = Condition::parse(&text).expect("a chain");
        assert!(condition.admits(&row), "{part}{between}");
    }
}

#[test]
fn texts_lists_columns_and_paths_are_bounded() {
    let spaces = " ".repeat(QUERY_BYTES_MAX - 1);
    assert!(Condition::parse(&format!("{spaces}a")).is_ok());
    is_refused_at(
        &format!("{spaces}ab"),
        QUERY_BYTES_MAX,
        "at most 16384 bytes, found 16385",
    );
    let list = |count: usize| format!("a IN [{}]", vec!["1"; count].join(","));
    assert!(Condition::parse(&list(IN_LIST_MAX)).is_ok());
    is_refused_at(&list(IN_LIST_MAX + 1), 6 + 2 * IN_LIST_MAX, "at most 1000 values");
    let path = |count: usize| vec!["a"; count].join(".");
    assert!(Condition::parse(&path(PATH_SEGMENTS_MAX)).is_ok());
    is_refused_at(
        &path(PATH_SEGMENTS_MAX + 1),
        2 * PATH_SEGMENTS_MAX - 1,
        "at most 20 steps",
    );
    is_refused_at(
        &format!("a{}", "[0]".repeat(PATH_SEGMENTS_MAX)),
        58,
        "at most 20 steps",
    );
    let names = |count: usize| (0..count).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
    let columns = |count: usize| Statement::parse(&format!("SELECT {} FROM devices", names(count)));
    assert!(columns(COLUMNS_MAX).is_ok());
    let error = columns(COLUMNS_MAX + 1).expect_err("too many");
    assert!(
        error.message.starts_with("expected at most 50 columns"),
        "{error}"
    );
    let groups =
        |count: usize| Statement::parse(&format!("SELECT COUNT() FROM devices GROUP BY {}", names(count)));
    assert!(groups(COLUMNS_MAX).is_ok());
    let error = groups(COLUMNS_MAX + 1).expect_err("too many");
    assert!(error.message.starts_with("expected at most 50 paths"), "{error}");
}
