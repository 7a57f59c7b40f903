//! A device's twin: what services want of it (`desired`), what it says of itself (`reported`), and what only
//! services see (`tags`).
//!
//! Pure: how a patch merges, what versions and times it leaves behind, and how large a section may become. Which
//! documents may come in at all is [`check`]'s part; who may write, the shard's; how it is shown, the doors'.
//!
//! Semantics: IoT Hub, "Understand and use device twins" (merge documents of RFC 7396 per section, `$version`
//! counted per section, `$metadata` with `$lastUpdated` at every level).

pub mod check;
pub mod document;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::configuration::Marks;

/// Bytes of `tags`, counted by [`size_bytes`].
pub const TAGS_BYTES_MAX: usize = 8 * 1024;
/// Bytes of `desired` and of `reported` each, counted by [`size_bytes`].
pub const PROPERTIES_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a section's JSON text, and of that of one change, written without spaces. Above what [`size_bytes`] may
/// come to, since that counts neither control characters nor what is empty: without this a section had no end.
pub const TEXT_BYTES_MAX: usize = 128 * 1024;
/// Changes of `desired` that are kept to be told again, and the bytes of their text.
pub const RECENT_CHANGES_MAX: usize = 8;
const RECENT_CHANGES_BYTES_MAX: usize = PROPERTIES_BYTES_MAX;

/// The content of an object.
pub type Object = Map<String, Value>;

/// A twin as the shard keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    /// Rises by one with each change by a service.
    pub version: u64,
    /// Names a state for conditions; drawn from the shard's counter with each change by a service, so that none
    /// ever comes again. 1 for a twin that no service has changed.
    pub etag: u64,
    /// What only services see.
    pub tags: Object,
    /// What services want.
    pub desired: Section,
    /// What the device says.
    pub reported: Section,
    /// The last changes of `desired`, oldest first: a new leader tells them again, since a note that was on its way
    /// from the old one may be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<DesiredChange>,
    /// The configurations that concern it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configurations: Marks,
}

/// Properties with their version and times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Rises by one with each change; begins at 1.
    pub version: u64,
    /// The properties.
    pub content: Object,
    /// When and by which version each was changed.
    pub updated: Updated,
}

/// Last change of a property and of those below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Updated {
    /// Stamp of the entry, milliseconds since 1970.
    pub ms: u64,
    /// Version of the section.
    pub version: u64,
    /// The properties below.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub below: BTreeMap<String, Updated>,
}

/// A change of `desired`, as devices are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredChange {
    /// The version that it made.
    pub version: u64,
    /// Stamp of the entry.
    pub ms: u64,
    /// A merge document, as JSON text without `$version`.
    pub patch: String,
}

/// When a change happens, and as which version.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    ms: u64,
    version: u64,
}

impl Default for Twin {
    fn default() -> Self {
        Self {
            version: 1,
            etag: 1,
            tags: Object::new(),
            desired: Section::default(),
            reported: Section::default(),
            recent: Vec::new(),
            configurations: Marks::new(),
        }
    }
}

impl Default for Section {
    fn default() -> Self {
        Self {
            version: 1,
            content: Object::new(),
            updated: Updated::default(),
        }
    }
}

impl Section {
    /// Merges `patch`: `null` removes, an object merges into an object, anything else replaces.
    fn merge(&mut self, patch: &Object, ms: u64) {
        let stamp = self.next(ms);
        merge(&mut self.content, patch, &mut self.updated, stamp);
    }

    fn next(&mut self, ms: u64) -> Stamp {
        self.version += 1;
        Stamp {
            ms,
            version: self.version,
        }
    }
}

impl Twin {
    /// The device reports `patch` at `ms`. Returns whether the section stays within its bound; otherwise nothing
    /// has changed.
    pub fn report(&mut self, patch: &Object, ms: u64) -> bool {
        let mut reported = self.reported.clone();
        reported.merge(patch, ms);
        let fits = fits(&reported.content, PROPERTIES_BYTES_MAX);
        if fits {
            self.reported = reported;
        }
        fits
    }

    /// A service changes what is given, by merging (`replaces` false) or wholly. `etag` will name the new state.
    /// Returns whether both sections stay within their bounds; otherwise nothing has changed.
    pub fn change(
        &mut self,
        (tags, desired): (Option<&Object>, Option<&Object>),
        replaces: bool,
        etag: u64,
        ms: u64,
    ) -> bool {
        let mut new = self.clone();
        if let Some(tags) = tags {
            if replaces {
                new.tags.clear();
            }
            merge(
                &mut new.tags,
                tags,
                &mut Updated::default(),
                Stamp { ms, version: 0 },
            );
        }
        if let Some(desired) = desired {
            let patch = if replaces {
                difference(&new.desired.content, desired)
            } else {
                desired.clone()
            };
            new.desired.merge(&patch, ms);
            new.keep_change(&patch, ms);
        }
        let fits = fits(&new.tags, TAGS_BYTES_MAX) && fits(&new.desired.content, PROPERTIES_BYTES_MAX);
        if fits {
            new.version += 1;
            new.etag = etag;
            *self = new;
        }
        fits
    }

    /// Parts of what is desired are put in place of what is there, one after the other, and `marks` in place of those
    /// that there are. `etag` will name the new state. Only what becomes different is told to the device. Returns
    /// whether the section stays within its bound; otherwise nothing has changed.
    pub fn configure(
        &mut self,
        settings: &[(&[String], Value)],
        marks: Option<&Marks>,
        etag: u64,
        ms: u64,
    ) -> bool {
        let mut content = self.desired.content.clone();
        for (path, value) in settings {
            put_at(&mut content, path, value);
        }
        let patch = least_difference(&self.desired.content, &content);
        let is_told = !patch.is_empty();
        let mut new = self.clone();
        if is_told {
            new.desired.merge(&patch, ms);
            new.keep_change(&patch, ms);
        }
        if let Some(marks) = marks {
            new.configurations.clone_from(marks);
        }
        let fits = fits(&new.desired.content, PROPERTIES_BYTES_MAX);
        if fits && new != *self {
            new.version += 1;
            new.etag = etag;
            *self = new;
        }
        fits
    }

    fn keep_change(&mut self, patch: &Object, ms: u64) {
        let patch = text_of(patch);
        let version = self.desired.version;
        self.recent.push(DesiredChange { version, ms, patch });
        let bytes = |recent: &[DesiredChange]| recent.iter().map(|change| change.patch.len()).sum::<usize>();
        while self.recent.len() > RECENT_CHANGES_MAX
            || (self.recent.len() > 1 && bytes(&self.recent) > RECENT_CHANGES_BYTES_MAX)
        {
            self.recent.remove(0);
        }
    }
}

fn merge(content: &mut Object, patch: &Object, updated: &mut Updated, stamp: Stamp) {
    (updated.ms, updated.version) = (stamp.ms, stamp.version);
    for (key, change) in patch {
        match change {
            Value::Null => {
                content.remove(key);
                updated.below.remove(key);
            }
            Value::Object(change) => {
                let known = content
                    .entry(key.clone())
                    .or_insert_with(|| Value::Object(Object::new()));
                if !known.is_object() {
                    *known = Value::Object(Object::new());
                    updated.below.remove(key);
                }
                let Value::Object(known) = known else { continue };
                merge(
                    known,
                    change,
                    updated.below.entry(key.clone()).or_default(),
                    stamp,
                );
            }
            value => {
                content.insert(key.clone(), value.clone());
                let leaf = Updated {
                    ms: stamp.ms,
                    version: stamp.version,
                    below: BTreeMap::new(),
                };
                updated.below.insert(key.clone(), leaf);
            }
        }
    }
}

/// Puts `value` at `path`; what stands in the way is replaced. At no path, an object is the whole content.
fn put_at(content: &mut Object, path: &[String], value: &Value) {
    let Some((last, above)) = path.split_last() else {
        if let Value::Object(whole) = without_nulls(value) {
            *content = whole;
        }
        return;
    };
    let mut place = content;
    for step in above {
        let below = place
            .entry(step.clone())
            .or_insert_with(|| Value::Object(Object::new()));
        if !below.is_object() {
            *below = Value::Object(Object::new());
        }
        let Value::Object(below) = below else { return };
        place = below;
    }
    if value.is_null() {
        place.remove(last);
    } else {
        place.insert(last.clone(), without_nulls(value));
    }
}

/// `value`, in whose objects nothing is `null`: what is not there.
fn without_nulls(value: &Value) -> Value {
    let Value::Object(content) = value else {
        return value.clone();
    };
    let there = content.iter().filter(|(_, value)| !value.is_null());
    Value::Object(
        there
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
    )
}

/// The least merge document that makes `old` into `new`, which has no `null`; empty if they are the same.
fn least_difference(old: &Object, new: &Object) -> Object {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let mut patch: Object = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in new {
        let change = match (old.get(key), value) {
            (Some(old), new) if old == new => continue,
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(least_difference(old, new)),
            _ => value.clone(),
        };
        patch.insert(key.clone(), change);
    }
    patch
}

/// The merge document that makes `old` into `new`: a device that merges converges, as one that reads all does.
fn difference(old: &Object, new: &Object) -> Object {
    let mut patch = Object::new();
    for key in old.keys() {
        if new.get(key).is_none_or(Value::is_null) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    for (key, value) in new {
        let change = match (old.get(key), value) {
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(difference(old, new)),
            _ => value.clone(),
        };
        patch.insert(key.clone(), change);
    }
    patch
}

fn fits(content: &Object, bytes_max: usize) -> bool {
    size_bytes(content) <= bytes_max && text_of(content).len() <= TEXT_BYTES_MAX
}

/// The JSON text of `content`, without spaces.
pub fn text_of(content: &Object) -> String {
    serde_json::to_string(content).expect("JSON values are plain data")
}

/// What a section counts: keys and values; a string its UTF-8 bytes without control characters, a number 8, a
/// truth value 4, what is nested its sum.
pub fn size_bytes(content: &Object) -> usize {
    content
        .iter()
        .map(|(key, value)| text_bytes(key) + value_bytes(value))
        .sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text_bytes(text),
        Value::Array(values) => values.iter().map(value_bytes).sum(),
        Value::Object(content) => size_bytes(content),
    }
}

fn text_bytes(text: &str) -> usize {
    text.chars()
        .filter(|character| !character.is_control())
        .map(char::len_utf8)
        .sum()
}

#[cfg(test)]
mod tests;
