//! What the configurations that concern a twin make of it: settings in the order of their priorities, and marks.
//!
//! Pure: the same configurations always give the same plan, whoever makes it. It also reads what a configuration's
//! content may say, for the door.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Configuration, Mark, Marks, Setting};
use crate::twin::{Object, check};

/// Steps of a path below `properties.desired`.
const PATH_STEPS_MAX: usize = 10;
/// Modules that one configuration has something to say of.
const MODULES_MAX: usize = crate::limits::MODULES_PER_DEVICE_MAX;

/// What a configuration says, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// To the twin itself: of a device, or of a module.
    pub own: Vec<Setting>,
    /// To modules of a device, by their names.
    pub modules: BTreeMap<String, Vec<Setting>>,
    /// Whether it is for modules (`moduleContent`).
    pub is_for_modules: bool,
}

/// What is to be made of a twin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The settings, in the order in which they are made: later ones stand over earlier ones.
    pub own: Vec<Setting>,
    /// The same for modules of the device.
    pub modules: BTreeMap<String, Vec<Setting>>,
    /// What the twin says of it.
    pub marks: Marks,
}

impl Content {
    /// Reads the `content` of a configuration. `Err` says what is wrong with it.
    pub fn read(text: &str) -> Result<Content, String> {
        let content: Object =
            serde_json::from_str(text).map_err(|error| format!("the content is no object: {error}"))?;
        let mut read = Content::default();
        for (kind, value) in &content {
            match (kind.as_str(), value) {
                (_, Value::Null) => {}
                ("deviceContent", value) => read.own = settings(kind, value)?,
                ("moduleContent", value) => {
                    read.own = settings(kind, value)?;
                    read.is_for_modules = true;
                }
                ("modulesContent", Value::Object(modules)) => {
                    if modules.len() > MODULES_MAX {
                        return Err(format!("modulesContent has more than {MODULES_MAX} modules"));
                    }
                    for (module, value) in modules {
                        let place = format!("modulesContent.{module}");
                        read.modules.insert(module.clone(), settings(&place, value)?);
                    }
                }
                ("modulesContent", _) => return Err("modulesContent is no object".to_owned()),
                _ => return Err(format!("the content has no part called {kind}")),
            }
        }
        if read.is_for_modules && (content.contains_key("deviceContent") || !read.modules.is_empty()) {
            return Err("moduleContent goes with nothing else".to_owned());
        }
        Ok(read)
    }

    /// Where it says something: of whom (`None` for the twin itself), and below which path.
    fn places(&self) -> impl Iterator<Item = (Option<&str>, &[String])> {
        let own = self.own.iter().map(|setting| (None, &setting.path[..]));
        let modules = self.modules.iter().flat_map(|(module, settings)| {
            settings
                .iter()
                .map(|setting| (Some(module.as_str()), &setting.path[..]))
        });
        own.chain(modules)
    }
}

/// The settings of one twin: an object whose keys are `properties.desired`, or paths below it.
fn settings(place: &str, value: &Value) -> Result<Vec<Setting>, String> {
    let Value::Object(sections) = value else {
        return Err(format!("{place} is no object"));
    };
    let mut read = Vec::new();
    for (key, value) in sections {
        let path = match key.strip_prefix("properties.desired") {
            Some("") => Vec::new(),
            Some(rest) => match rest.strip_prefix('.') {
                Some(rest) => rest.split('.').map(str::to_owned).collect(),
                None => return Err(format!("{place}: {key} is no path below properties.desired")),
            },
            None => return Err(format!("{place}: {key} is no path below properties.desired")),
        };
        if path.len() > PATH_STEPS_MAX || path.iter().any(String::is_empty) {
            return Err(format!("{place}: {key} is no path below properties.desired"));
        }
        if path.is_empty() && !value.is_object() {
            return Err(format!("{place}: {key} is no object"));
        }
        check::check(&nested(&path, value)).map_err(|fault| format!("{place}: {key}: {fault}"))?;
        let value = value.to_string();
        read.push(Setting { path, value });
    }
    // What contains another comes first.
    read.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(read)
}

/// The section in which `value` stands at `path`.
fn nested(path: &[String], value: &Value) -> Object {
    match path {
        [] => value.as_object().cloned().unwrap_or_default(),
        [last] => Object::from_iter([(last.clone(), value.clone())]),
        [first, rest @ ..] => Object::from_iter([(first.clone(), Value::Object(nested(rest, value)))]),
    }
}

/// What `fitting`, the configurations that concern a twin, make of it. One whose content does not read says nothing.
pub fn plan<'a>(fitting: impl IntoIterator<Item = &'a Configuration>) -> Plan {
    let mut ordered: Vec<(&Configuration, Content)> = fitting
        .into_iter()
        .map(|one| (one, Content::read(&one.spec.content).unwrap_or_default()))
        .collect();
    ordered.sort_by_key(|(one, _)| (one.spec.priority, one.created_ms, one.id.clone()));
    let mut plan = Plan::default();
    for (rank, (one, content)) in ordered.iter().enumerate() {
        let higher = &ordered[rank + 1..];
        let is_covered = |(whose, path): (Option<&str>, &[String])| {
            higher.iter().any(|(_, other)| {
                other
                    .places()
                    .any(|(of, over)| of == whose && path.starts_with(over))
            })
        };
        let mark = Mark {
            version: one.version,
            is_applied: !content.places().any(is_covered),
        };
        plan.marks.insert(one.id.clone(), mark);
        plan.own.extend(content.own.iter().cloned());
        for (module, settings) in &content.modules {
            let all = plan.modules.entry(module.clone()).or_default();
            all.extend(settings.iter().cloned());
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::configuration::ConfigurationSpec;

    fn made(id: &str, priority: u32, created_ms: u64, content: Value) -> Configuration {
        Configuration {
            id: id.to_owned(),
            spec: ConfigurationSpec {
                schema_version: "1.0".into(),
                labels: BTreeMap::new(),
                content: content.to_string(),
                target: "*".into(),
                priority,
                metrics: BTreeMap::new(),
            },
            version: 7,
            created_ms,
            updated_ms: created_ms,
        }
    }

    fn written(settings: &[Setting]) -> Vec<String> {
        let line = |setting: &Setting| format!("{}={}", setting.path.join("."), setting.value);
        settings.iter().map(line).collect()
    }

    #[test]
    fn later_settings_stand_over_earlier_ones() {
        let low = made(
            "low",
            1,
            5,
            json!({"deviceContent": {"properties.desired.a": 1, "properties.desired.b": 1}}),
        );
        let high = made(
            "high",
            2,
            1,
            json!({"deviceContent": {"properties.desired.a": {"x": 2}}}),
        );
        let young = made(
            "young",
            2,
            9,
            json!({"deviceContent": {"properties.desired.c": 3}}),
        );
        let plan = plan([&young, &high, &low]);
        assert_eq!(written(&plan.own), ["a=1", "b=1", r#"a={"x":2}"#, "c=3"]);
        let applied = |id: &str| plan.marks[id].is_applied;
        assert_eq!(
            (applied("low"), applied("high"), applied("young")),
            (false, true, true)
        );
    }

    #[test]
    fn a_part_of_what_another_says_takes_nothing_from_it() {
        let base = made(
            "base",
            0,
            1,
            json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"a": 1}}}}),
        );
        let layer = made(
            "layer",
            1,
            2,
            json!({"modulesContent": {"$edgeAgent": {"properties.desired.modules.x": 2}}}),
        );
        let plan = plan([&layer, &base]);
        assert_eq!(
            written(&plan.modules["$edgeAgent"]),
            [r#"={"a":1}"#, "modules.x=2"]
        );
        assert!(
            plan.marks
                .values()
                .all(|mark| mark.is_applied && mark.version == 7)
        );
        let other = made(
            "other",
            5,
            3,
            json!({"modulesContent": {"$edgeAgent": {"properties.desired": {}}}}),
        );
        let plan = super::plan([&layer, &base, &other]);
        let applied: Vec<bool> = plan.marks.values().map(|mark| mark.is_applied).collect();
        assert_eq!(applied, [false, false, true], "base, layer, other");
        assert_eq!(super::plan([]), Plan::default());
    }

    #[test]
    fn content_that_makes_no_sense_is_called_so() {
        let read = |content: Value| Content::read(&content.to_string());
        assert_eq!(read(json!({})), Ok(Content::default()));
        assert_eq!(read(json!({"deviceContent": null})), Ok(Content::default()));
        let module = read(json!({"moduleContent": {"properties.desired": {"a": null}}})).unwrap();
        assert!(module.is_for_modules);
        for wrong in [
            json!([]),
            json!({"deviceContents": {}}),
            json!({"deviceContent": 1}),
            json!({"deviceContent": {"tags.a": 1}}),
            json!({"deviceContent": {"properties.desiredly": 1}}),
            json!({"deviceContent": {"properties.desired": 1}}),
            json!({"deviceContent": {"properties.desired.": 1}}),
            json!({"deviceContent": {"properties.desired.a..b": 1}}),
            json!({"deviceContent": {"properties.desired.a.b.c.d.e.f.g.h.i.j.k": 1}}),
            json!({"deviceContent": {"properties.desired.$a": 1}}),
            json!({"modulesContent": []}),
            json!({"modulesContent": {"m": 1}}),
            json!({"moduleContent": {}, "deviceContent": {}}),
            json!({"moduleContent": {}, "modulesContent": {"m": {}}}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
