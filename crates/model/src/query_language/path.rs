//! Paths into a row: what they name, what they find, and how a column is called that has no name of its own.
//!
//! Nothing here reads query text; that is `parse`.

use serde_json::Value;

use super::Source;

/// Fields that rows of devices and modules have at the top, as they are spelled there.
const FIELDS: &[&str] = &[
    "authenticationType",
    "capabilities",
    "cloudToDeviceMessageCount",
    "configurations",
    "connectionState",
    "deviceEtag",
    "deviceId",
    "deviceScope",
    "etag",
    "lastActivityTime",
    "modelId",
    "moduleId",
    "parentScopes",
    "properties",
    "status",
    "statusReason",
    "statusUpdateTime",
    "tags",
    "version",
    "x509Thumbprint",
];

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Into an object.
    Name(String),
    /// Into an array; the first element is 0.
    Index(usize),
}

/// A path into a row. It begins with a name, and has at most [`PATH_SEGMENTS_MAX`](super::PATH_SEGMENTS_MAX) steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    segments: Vec<Segment>,
}

impl Path {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        Self { segments }
    }

    /// The steps.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What the path leads to in `row`. The first name is matched exactly, or else without regard to case; the
    /// others exactly.
    pub fn find<'a>(&self, row: &'a Value) -> Option<&'a Value> {
        let (Segment::Name(first), rest) = self.segments.split_first()? else {
            return None;
        };
        let row = row.as_object()?;
        let alike = || row.iter().find(|(key, _)| key.eq_ignore_ascii_case(first));
        let first = row.get(first).or_else(|| alike().map(|(_, value)| value))?;
        rest.iter().try_fold(first, |value, segment| match segment {
            Segment::Name(name) => value.as_object()?.get(name),
            Segment::Index(index) => value.as_array()?.get(*index),
        })
    }

    /// Whether it goes through `name`, or to it.
    pub(super) fn mentions(&self, name: &str) -> bool {
        (0..)
            .zip(&self.segments)
            .any(|(place, segment)| is_named(segment, place, name))
    }

    /// Whether it leads to `place`, to something that contains it, or into it.
    pub(super) fn meets(&self, place: &[&str]) -> bool {
        let pairs = self.segments.iter().zip(place);
        (0..)
            .zip(pairs)
            .all(|(step, (segment, name))| is_named(segment, step, name))
    }

    /// Whether both lead to the same place in every row.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_same = |(step, (segment, other)): (usize, (&Segment, &Segment))| match other {
            Segment::Name(name) => is_named(segment, step, name),
            Segment::Index(_) => segment == other,
        };
        let pairs = self.segments.iter().zip(&other.segments);
        self.segments.len() == other.segments.len() && (0..).zip(pairs).all(is_same)
    }

    /// The name of a column that is given none: the last name of the path. A field that rows have at the top is
    /// spelled as there, since clients look for that (IoT Hub answers `SELECT DeviceId` with `deviceId`).
    pub(super) fn column_name(&self) -> &str {
        let mut names = self.segments.iter().filter_map(|segment| match segment {
            Segment::Name(name) => Some(name.as_str()),
            Segment::Index(_) => None,
        });
        let last = names.next_back().unwrap_or_default();
        let field = || FIELDS.iter().find(|field| field.eq_ignore_ascii_case(last));
        match &self.segments[..] {
            [_] => field().copied().unwrap_or(last),
            _ => last,
        }
    }

    /// Without the name of `source` in front, which queries may write (`devices.jobs.status`).
    pub(super) fn within(mut self, source: Source) -> Self {
        let name = source.name();
        let length = name.split('.').count();
        let is_prefixed = name
            .split('.')
            .zip(&self.segments)
            .all(|(part, segment)| matches!(segment, Segment::Name(name) if name.eq_ignore_ascii_case(part)));
        let next = self.segments.get(length);
        if is_prefixed && matches!(next, Some(Segment::Name(_))) {
            self.segments.drain(..length);
        }
        self
    }
}

/// Only at the top are names alike without regard to case.
fn is_named(segment: &Segment, place: usize, name: &str) -> bool {
    match segment {
        Segment::Name(own) if place == 0 => own.eq_ignore_ascii_case(name),
        Segment::Name(own) => own == name,
        Segment::Index(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> Path {
        let segment = |part: &str| match part.parse() {
            Ok(index) => Segment::Index(index),
            Err(_) => Segment::Name(part.to_owned()),
        };
        Path::new(text.split('.').map(segment).collect())
    }

    #[test]
    fn only_the_first_name_may_be_spelled_differently() {
        let row = json!({"deviceId": "d", "tags": {"Plant": "x", "list": [1, {"a": 2}]}, "TAGS": 7});
        for (text, expected) in [
            ("deviceId", Some(json!("d"))),
            ("DEVICEID", Some(json!("d"))),
            ("TAGS", Some(json!(7))),
            ("tags.Plant", Some(json!("x"))),
            ("tags.plant", None),
            ("tags.list.0", Some(json!(1))),
            ("tags.list.1.a", Some(json!(2))),
            ("tags.list.2", None),
            ("tags.list.a", None),
            ("tags.Plant.x", None),
            ("0", None),
            ("nothing", None),
        ] {
            assert_eq!(path(text).find(&row), expected.as_ref(), "{text}");
        }
        assert_eq!(path("a").find(&json!([1])), None);
    }

    #[test]
    fn columns_are_called_by_the_last_name() {
        for (text, expected) in [
            ("tags.Plant", "Plant"),
            ("DEVICEID", "deviceId"),
            ("tags.DEVICEID", "DEVICEID"),
            ("Other", "Other"),
            ("tags.list.0", "list"),
        ] {
            assert_eq!(path(text).column_name(), expected);
        }
    }

    #[test]
    fn the_name_of_the_source_is_left_out() {
        for (text, source, expected) in [
            ("devices.jobs.status", Source::Jobs, "status"),
            ("Devices.Jobs.status", Source::Jobs, "status"),
            ("devices.status", Source::Devices, "status"),
            ("devices.jobs.status", Source::Devices, "jobs.status"),
            ("devices.status", Source::Jobs, "devices.status"),
            ("devices", Source::Devices, "devices"),
            ("devices.0", Source::Devices, "devices.0"),
        ] {
            assert_eq!(path(text).within(source), path(expected), "{text}");
        }
    }

    #[test]
    fn a_path_meets_what_it_contains_and_what_contains_it() {
        let place = ["properties", "desired", "$metadata"];
        for text in [
            "properties",
            "Properties.desired",
            "properties.desired.$metadata.a",
        ] {
            assert!(path(text).meets(&place), "{text}");
        }
        for text in [
            "tags",
            "properties.reported",
            "properties.desired.a",
            "properties.0",
        ] {
            assert!(!path(text).meets(&place), "{text}");
        }
        assert!(path("a.b").mentions("b") && path("a.b").mentions("A") && !path("a.b").mentions("B"));
        assert!(path("A.b.0").is_same(&path("a.b.0")));
        assert!(!path("a.B").is_same(&path("a.b")) && !path("a").is_same(&path("a.b")));
        assert!(!path("a.0").is_same(&path("a.1")));
    }
}
