//! What configurations ask of a few twins, and what the twins and the configurations say once nobody asks for anything new.
//!
//! Plain data, written to `surveys.jsonl`; judged by [`crate::invariants::configurations`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A configuration, as it was asked for. Each says under `setting` of whatever twin it concerns what it is called, and
/// some say so under `extra` as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What it is called.
    pub id: String,
    /// No two have the same.
    pub priority: u32,
    /// The lot whose devices it concerns; all lots if there is none.
    pub lot: Option<String>,
    /// Whether it has something to say under `extra`.
    pub has_extra: bool,
}

/// A twin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    /// Whose.
    pub device: String,
    /// The lot that was asked for.
    pub lot: String,
    /// The lot that its tags say.
    pub shown_lot: String,
    /// What is desired under `setting`; empty if nothing is.
    pub setting: String,
    /// The same under `extra`.
    pub extra: String,
    /// What it says of configurations that concern it, by their names.
    pub marks: BTreeMap<String, String>,
}

/// What a configuration's metrics come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Which.
    pub id: String,
    /// Twins that it concerns.
    pub targeted: u64,
    /// Those where nothing stands over it.
    pub applied: u64,
    /// Its own metric: twins that have its name under `setting`.
    pub own: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// When the last change was acknowledged.
    pub changed_us: u64,
    /// When all of this was seen.
    pub us: u64,
    /// The configurations that there are.
    pub rules: Vec<Rule>,
    /// The twins.
    pub twins: Vec<Twin>,
    /// What the configurations count; those that are not there are missing.
    pub counts: Vec<Counts>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let survey = Survey {
            changed_us: 1,
            us: 2,
            rules: vec![Rule {
                id: "one".into(),
                priority: 3,
                lot: Some("a".into()),
                has_extra: true,
            }],
            twins: vec![Twin {
                device: "d".into(),
                lot: "a".into(),
                shown_lot: "a".into(),
                setting: "one".into(),
                extra: "one".into(),
                marks: [("one".to_owned(), "Applied".to_owned())].into(),
            }],
            counts: vec![Counts {
                id: "one".into(),
                targeted: 1,
                applied: 1,
                own: 1,
            }],
        };
        let line = serde_json::to_string(&survey).unwrap();
        assert_eq!(serde_json::from_str::<Survey>(&line).unwrap(), survey, "{line}");
    }
}
