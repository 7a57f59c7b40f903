//! Holds `docs/mqtt-conformance.md` against the tests beside this file: every statement has one row, every row that says
//! it is covered has its test, and every test stands in the rows of all its statements.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PAGE: &str = include_str!("../../../../../docs/mqtt-conformance.md");
/// The specifications, as they are called above tests and as headings of the page, and how many statements each has.
const SPECIFICATIONS: [(&str, usize); 2] = [("3.1.1", 141), ("5", 251)];

/// What the page says of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    /// The test that holds it, as `room::name`.
    Covered(String),
    Client,
    Excluded,
}

/// A test: `room::name`, and the statements above it, as specification and id.
struct Test {
    name: String,
    statements: Vec<(String, String)>,
}

fn is_id(text: &str) -> bool {
    let Some((section, number)) = text.strip_prefix("MQTT-").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    section.split('.').count() == 3 && section.split('.').all(is_number) && is_number(number)
}

/// The rows under the heading of one specification, and what is wrong with them.
fn rows(page: &str, specification: &str) -> (BTreeMap<String, Said>, Vec<String>) {
    let (mut rows, mut problems) = (BTreeMap::new(), Vec::new());
    let heading = format!("## MQTT {specification}");
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        let cells: Vec<&str> = line
            .trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim())
            .collect();
        let [id, asked, said] = cells[..] else { continue };
        if !is_id(id) {
            if id.starts_with("MQTT") {
                problems.push(format!("{specification}: {id} is no id"));
            }
            continue;
        }
        let said = match said {
            "client" => Said::Client,
            _ if said.len() > 20 && said.starts_with("excluded: ") => Said::Excluded,
            _ => match said.split('`').nth(1).filter(|_| said.starts_with('`')) {
                Some(test) => Said::Covered(test.to_owned()),
                None => {
                    problems.push(format!("{specification}: {id} is neither covered nor excluded"));
                    continue;
                }
            },
        };
        if asked.len() < 10 {
            problems.push(format!("{specification}: {id} asks for nothing"));
        }
        if rows.insert(id.to_owned(), said).is_some() {
            problems.push(format!("{specification}: {id} stands there twice"));
        }
    }
    (rows, problems)
}

/// The tests of one file.
fn tests(room: &str, source: &str) -> Vec<Test> {
    let (mut found, mut statements, mut is_test) = (Vec::new(), Vec::new(), false);
    for line in source.lines() {
        if let Some(said) = line.strip_prefix("/// ") {
            for (specification, _) in SPECIFICATIONS {
                let Some(ids) = said.strip_prefix(&format!("{specification}: ")) else {
                    continue;
                };
                let ids = ids
                    .split(", ")
                    .map(|id| (specification.to_owned(), id.to_owned()));
                statements.extend(ids);
            }
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with(' ')) {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            if is_test {
                let name = format!("{room}::{name}");
                found.push(Test { name, statements });
            }
            (statements, is_test) = (Vec::new(), false);
        }
    }
    found
}

/// The tests of all files beside this one.
fn suite() -> Vec<Test> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/conformance");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let room = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if room != "ledger" {
            all.extend(tests(&room, &std::fs::read_to_string(path).unwrap()));
        }
    }
    all
}

/// What is wrong between the page and the suite.
fn problems(page: &str, suite: &[Test]) -> Vec<String> {
    let mut found = Vec::new();
    let mut held = BTreeMap::new();
    let mut names = BTreeSet::new();
    for Test { name, statements } in suite {
        if !names.insert(name) {
            found.push(format!("{name} is there twice"));
        }
        let Some((_, first)) = statements.first() else {
            found.push(format!("{name} says of no statement that it holds it"));
            continue;
        };
        let begins = first.replace(['.', '-'], "_").to_lowercase();
        if !name
            .split("::")
            .any(|part| part.starts_with(&format!("{begins}_")))
        {
            found.push(format!("{name} does not begin with {first}"));
        }
        for statement in statements {
            if let Some(other) = held.insert(statement.clone(), name.clone()) {
                found.push(format!("{statement:?} is held by {other} and by {name}"));
            }
        }
    }
    for (specification, count) in SPECIFICATIONS {
        let (rows, wrong) = rows(page, specification);
        found.extend(wrong);
        if rows.len() != count {
            found.push(format!("{specification}: {} statements of {count}", rows.len()));
        }
        for (id, said) in &rows {
            let key = (specification.to_owned(), id.clone());
            match (said, held.get(&key)) {
                (Said::Covered(test), Some(name)) if test == name => {}
                (Said::Client | Said::Excluded, None) => {}
                (said, holder) => found.push(format!("{key:?}: {said:?}, and {holder:?}")),
            }
        }
        for (of, id) in held.keys() {
            if of == specification && !rows.contains_key(id) {
                found.push(format!("{specification}: {id} has a test and no row"));
            }
        }
        let number = |is: fn(&Said) -> bool| rows.values().filter(|said| is(said)).count();
        let covered = number(|said| matches!(said, Said::Covered(_)));
        let client = number(|said| *said == Said::Client);
        let excluded = number(|said| *said == Said::Excluded);
        let counts = format!("| MQTT {specification} | {covered} | {client} | {excluded} |");
        if !page.contains(&counts) {
            found.push(format!("the page does not say: {counts}"));
        }
    }
    found
}

#[test]
fn the_page_and_the_tests_agree() {
    let found = problems(PAGE, &suite());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_page_that_disagrees_is_found() {
    let complain = |page: &str, what: &str| {
        let found = problems(page, &suite());
        assert!(found.iter().any(|problem| problem.contains(what)), "{found:?}");
    };
    let row = PAGE
        .lines()
        .find(|line| line.starts_with("| MQTT-3.1.0-1 |"))
        .unwrap();
    complain(
        &PAGE.replacen(&format!("{row}\n"), "", 1),
        "has a test and no row",
    );
    complain(
        &PAGE.replacen(row, &format!("{row}\n{row}"), 1),
        "stands there twice",
    );
    let renamed = row.replace("connect::", "connects::");
    complain(&PAGE.replacen(row, &renamed, 1), "connects::");
    let idle = "| MQTT-3.1.0-1 | The first packet is a CONNECT | excluded: no reason is good enough |";
    complain(&PAGE.replacen(row, idle, 1), "Excluded");
    let without = tests("room", "#[test]\nfn mqtt_1_2_3_4_x() {}\n");
    assert!(problems(PAGE, &without)[0].contains("no statement"));
    let other = tests("room", "/// 5: MQTT-3.1.0-1\n#[test]\nfn mqtt_3_1_0_2_x() {}\n");
    assert!(problems(PAGE, &other)[0].contains("does not begin"));
}
