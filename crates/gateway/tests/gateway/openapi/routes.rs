//! The routes of the hub, read from its sources as text, so that one that is added there and not in the document is found.
//!
//! A way to write a route that is not known here is an error, never a route that is passed over.

use std::collections::BTreeSet;
use std::path::Path;

use dunlin_gateway::websocket::WEBSOCKET_PATH;

use super::{METHODS, Route};

fn source(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// What stands between the bracket that was opened just before `text` and the one that closes it.
fn inside(text: &str) -> &str {
    let (mut depth, mut is_quoted) = (1, false);
    for (place, c) in text.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..place];
        }
    }
    panic!("a bracket stays open: {text:.80}")
}

/// Methods that `text` calls by name, as in `get(list).put(one)`.
fn methods_in(text: &str) -> Vec<&'static str> {
    let is_called = |method: &&&str| {
        text.match_indices(&format!("{method}(")).any(|(place, _)| {
            let before = text[..place].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
        })
    };
    METHODS.iter().filter(is_called).copied().collect()
}

/// The paths that the first argument of `.route(` stands for.
fn paths_of(argument: &str) -> Vec<String> {
    let literal = |text: &str| text.split('"').nth(1).map(str::to_owned);
    let queue = "/devices/{{id}}/messages/{bound}";
    let text = match argument {
        "WEBSOCKET_PATH" => return vec![WEBSOCKET_PATH.to_owned()],
        "&queue" => queue.to_owned(),
        // The wildcard is one parameter of the document.
        "&blob" => "/uploads/{{device}}/{{blob}}".to_owned(),
        text if text.starts_with('"') => return literal(text).into_iter().collect(),
        text if text.starts_with("&format!(") => literal(text).unwrap().replace("{queue}", queue),
        other => panic!("this test cannot read the path {other}"),
    };
    let mut found = BTreeSet::new();
    for bound in ["devicebound", "deviceBound"] {
        for path in ["enrollments", "enrollmentGroups"] {
            let text = text.replace("{bound}", bound).replace("{path}", path);
            found.insert(text.replace("{{", "{").replace("}}", "}"));
        }
    }
    found.into_iter().collect()
}

/// Every route that the sources name.
pub(super) fn routes() -> BTreeSet<Route> {
    let (text, enrollments) = (source("mod.rs"), source("enrollments.rs"));
    // What `paths_of` puts in place of variables.
    for said in [
        r#"for bound in ["devicebound", "deviceBound"]"#,
        r#"let queue = format!("/devices/{{id}}/messages/{bound}");"#,
        r#"let blob = format!("/{container}/{{device}}/{{*blob}}");"#,
        r#"("enrollments", Kind::Individual),"#,
        r#"("enrollmentGroups", Kind::Group),"#,
    ] {
        assert!(text.contains(said), "{said} is no longer in the source");
    }
    let mut found = BTreeSet::new();
    for (place, opening) in text.match_indices(".route(") {
        let arguments = inside(&text[place + opening.len()..]);
        let (path, handlers) = arguments.split_once(',').unwrap();
        let handlers = match handlers.trim().strip_prefix("enrollments::") {
            None => handlers,
            Some(call) => {
                let name = call.split('(').next().unwrap();
                let (_, rest) = enrollments.split_once(&format!("fn {name}(kind")).unwrap();
                rest.split("\n}\n").next().unwrap()
            }
        };
        let methods = methods_in(handlers);
        assert!(!methods.is_empty(), "{handlers} serves nothing");
        for path in paths_of(path.trim()) {
            found.extend(methods.iter().map(|method| ((*method).to_owned(), path.clone())));
        }
    }
    found
}
