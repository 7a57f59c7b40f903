//! Aggregates on their way: what shards count, meets here and becomes rows.
//!
//! Rows come in, one by one and in any order, partial results meet in any order, and what goes out is always the same.
//! It decides what is one group and what an aggregate takes in; what becomes of too many groups is for callers. How
//! sums stay exact is in `exact_sum`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::compare::total_order_of_texts;
use super::exact_sum::ExactSum;
use super::number::Number;
use super::{Aggregate, ColumnValue, Select, Statement};

/// Groups of one statement.
pub const GROUPS_MAX: usize = 1000;
/// Bytes of all groups with what was counted in them: half of what goes between nodes in one message.
pub const GROUPS_BYTES_MAX: usize = crate::limits::WIRE_FRAME_BYTES_MAX / 2;
/// Levels of objects and arrays by which rows are grouped; what lies deeper groups as if it were not there.
const KEY_DEPTH_MAX: usize = 32;
/// Bytes of an aggregate, at most, beside its digits and its text.
const PARTIAL_BYTES: usize = 24;

/// There are more groups than one answer holds, or larger ones. What was gathered so far is of no use then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the query has more than {GROUPS_MAX} groups, or they have more than {GROUPS_BYTES_MAX} bytes")]
pub struct TooManyGroups;

/// What the aggregates of one statement have come to, group by group. Only with the same statement does it make sense.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Groups {
    /// By what a row has at the grouped paths: JSON text of an array, with the JSON text of each value as a string, or
    /// `null` where the row has none.
    groups: BTreeMap<String, Vec<Partial>>,
    /// Bytes of `groups`.
    bytes: usize,
}

/// What an aggregate has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Partial {
    Count(u64),
    Sum {
        numbers: u64,
        /// Whether any of them is no integer.
        has_floats: bool,
        sum: ExactSum,
    },
    Least(Extreme),
    Greatest(Extreme),
}

/// The first, or the last, of what there was. A number leaves no place for texts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Extreme {
    number: Option<Number>,
    text: Option<String>,
}

impl Groups {
    /// No row yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `row` in, if the statement admits it. `Err` if there are too many groups now.
    pub fn add(&mut self, statement: &Statement, row: &Value) -> Result<(), TooManyGroups> {
        if !statement.admits(row) {
            return Ok(());
        }
        let mut partials: Vec<Partial> = statement.aggregates().map(Partial::new).collect();
        for (partial, aggregate) in partials.iter_mut().zip(statement.aggregates()) {
            partial.take(aggregate, row);
        }
        self.meet(key(statement, row), partials)
    }

    /// Takes in what was gathered elsewhere for the same statement. `Err` if there are too many groups now.
    pub fn merge(&mut self, other: Groups) -> Result<(), TooManyGroups> {
        let mut groups = other.groups.into_iter();
        groups.try_for_each(|(key, partials)| self.meet(key, partials))
    }

    /// The rows of the answer, in the order of their keys' texts, at most as many as the statement's `TOP`. A column
    /// without a value is left out. Without `GROUP BY` there is one row, also when none was taken in.
    pub fn rows(&self, statement: &Statement) -> Vec<Value> {
        let top = statement.top.and_then(|top| usize::try_from(top).ok());
        let top = top.unwrap_or(usize::MAX);
        if statement.group_by.is_empty() && self.groups.is_empty() {
            let partials: Vec<Partial> = statement.aggregates().map(Partial::new).collect();
            let row = row(statement, &[], &partials);
            return [row].into_iter().take(top).collect();
        }
        let groups = self.groups.iter().take(top);
        let rows = groups.map(|(key, partials)| row(statement, &values(key), partials));
        rows.collect()
    }

    fn meet(&mut self, key: String, partials: Vec<Partial>) -> Result<(), TooManyGroups> {
        let is_full = self.groups.len() >= GROUPS_MAX;
        let size = |partials: &[Partial]| partials.iter().map(Partial::bytes).sum::<usize>();
        if let Some(known) = self.groups.get_mut(&key) {
            let before = size(known);
            for (known, partial) in known.iter_mut().zip(partials) {
                known.meet(partial);
            }
            self.bytes = (self.bytes + size(known)).saturating_sub(before);
        } else if is_full {
            return Err(TooManyGroups);
        } else {
            self.bytes += key.len() + size(&partials);
            self.groups.insert(key, partials);
        }
        if self.bytes > GROUPS_BYTES_MAX {
            return Err(TooManyGroups);
        }
        Ok(())
    }
}

impl Partial {
    fn new(aggregate: &Aggregate) -> Self {
        match aggregate {
            Aggregate::Count => Partial::Count(0),
            Aggregate::Sum(_) | Aggregate::Average(_) => Partial::Sum {
                numbers: 0,
                has_floats: false,
                sum: ExactSum::default(),
            },
            Aggregate::Least(_) => Partial::Least(Extreme::default()),
            Aggregate::Greatest(_) => Partial::Greatest(Extreme::default()),
        }
    }

    fn take(&mut self, aggregate: &Aggregate, row: &Value) {
        let value = aggregate.path().and_then(|path| path.find(row));
        match self {
            Partial::Count(count) => *count += 1,
            Partial::Sum {
                numbers,
                has_floats,
                sum,
            } => {
                if let Some(Value::Number(number)) = value
                    && let Some(number) = Number::of_json(number)
                {
                    *numbers += 1;
                    *has_floats |= number.integer().is_none();
                    sum.add(number);
                }
            }
            Partial::Least(extreme) | Partial::Greatest(extreme) => match value {
                Some(Value::Number(number)) => extreme.number = Number::of_json(number),
                Some(Value::String(text)) => extreme.text = Some(text.clone()),
                _ => {}
            },
        }
    }

    /// One of another kind is left out: it belongs to another statement.
    fn meet(&mut self, other: Partial) {
        match (self, other) {
            (Partial::Count(count), Partial::Count(other)) => *count = count.saturating_add(other),
            (
                Partial::Sum {
                    numbers,
                    has_floats,
                    sum,
                },
                Partial::Sum {
                    numbers: other_numbers,
                    has_floats: other_has_floats,
                    sum: other_sum,
                },
            ) => {
                *numbers = numbers.saturating_add(other_numbers);
                *has_floats |= other_has_floats;
                sum.merge(&other_sum);
            }
            (Partial::Least(extreme), Partial::Least(other)) => extreme.meet(other, Ordering::Less),
            (Partial::Greatest(extreme), Partial::Greatest(other)) => extreme.meet(other, Ordering::Greater),
            _ => {}
        }
    }

    fn result(&self, aggregate: &Aggregate) -> Option<Value> {
        let number = match self {
            Partial::Count(count) => return Some(Value::from(*count)),
            Partial::Least(extreme) | Partial::Greatest(extreme) => {
                let text = || extreme.text.as_deref().map(Value::from);
                return extreme.number.map(Number::to_json).or_else(text);
            }
            Partial::Sum { numbers: 0, .. } => None,
            Partial::Sum {
                numbers,
                has_floats,
                sum,
            } => {
                let integer = if *has_floats { None } else { sum.integer() };
                let float = || sum.float().map(Number::Float);
                let sum = integer.map(Number::Integer).or_else(float)?;
                match aggregate {
                    Aggregate::Average(_) => sum.divide(Number::of_integer((*numbers).into())),
                    _ => Some(sum),
                }
            }
        };
        number.map(Number::to_json)
    }

    fn bytes(&self) -> usize {
        PARTIAL_BYTES
            + match self {
                Partial::Count(_) => 0,
                Partial::Sum { sum, .. } => sum.bytes(),
                Partial::Least(extreme) | Partial::Greatest(extreme) => {
                    extreme.text.as_ref().map_or(0, String::len)
                }
            }
    }
}

impl Extreme {
    /// Keeps of two the one that is `wanted` of the other.
    fn meet(&mut self, other: Self, wanted: Ordering) {
        if let Some(number) = other.number
            && self
                .number
                .is_none_or(|known| number.compare_held(known) == wanted)
        {
            self.number = Some(number);
        }
        if let Some(text) = other.text
            && self
                .text
                .as_ref()
                .is_none_or(|known| total_order_of_texts(&text, known) == wanted)
        {
            self.text = Some(text);
        }
        if self.number.is_some() {
            self.text = None;
        }
    }
}

fn row(statement: &Statement, values: &[Option<Value>], partials: &[Partial]) -> Value {
    let Select::Columns(columns) = &statement.select else {
        return Value::Object(Map::new());
    };
    let mut partials = partials.iter();
    let mut row = Map::new();
    for column in columns {
        let value = match &column.what {
            ColumnValue::Path(path) => {
                let place = statement.group_by.iter().position(|group| group.is_same(path));
                place.and_then(|place| values.get(place).cloned().flatten())
            }
            ColumnValue::Aggregate(aggregate) => {
                partials.next().and_then(|partial| partial.result(aggregate))
            }
        };
        if let Some(value) = value {
            row.insert(column.name.clone(), value);
        }
    }
    Value::Object(row)
}

fn key(statement: &Statement, row: &Value) -> String {
    let value = |path: &super::Path| {
        let value = path.find(row).and_then(|value| canonical(value, KEY_DEPTH_MAX));
        value.map_or(Value::Null, |value| Value::String(value.to_string()))
    };
    Value::Array(statement.group_by.iter().map(value).collect()).to_string()
}

/// The values of a key, each `None` where there is none.
fn values(key: &str) -> Vec<Option<Value>> {
    let texts: Vec<Option<String>> = serde_json::from_str(key).unwrap_or_default();
    let value = |text: String| {
        // The standard library reads back each float that was written; the JSON reader may miss its last bit.
        let number = Number::of_text(&text).map(Number::to_json);
        number.or_else(|| serde_json::from_str(&text).ok())
    };
    texts.into_iter().map(|text| text.and_then(value)).collect()
}

/// The same value with its numbers in one form, since equal numbers are of one group. `None` if it is too deep.
fn canonical(value: &Value, depth: usize) -> Option<Value> {
    let below = depth.checked_sub(1)?;
    Some(match value {
        Value::Number(number) => Number::of_json(number)?.canonical().to_json(),
        Value::Array(values) => {
            let values = values.iter().map(|value| canonical(value, below));
            Value::Array(values.collect::<Option<_>>()?)
        }
        Value::Object(content) => {
            let content = content
                .iter()
                .map(|(key, value)| Some((key.clone(), canonical(value, below)?)));
            Value::Object(content.collect::<Option<_>>()?)
        }
        other => other.clone(),
    })
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
