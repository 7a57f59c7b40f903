//! What an audit keeps of a security-relevant action: who did what to whom, and how it ended.
//!
//! Never a key, a token or a payload: fields are names, addresses and reasons. How a record is kept is
//! [`AuditSink`](crate::port::AuditSink), which `node` implements.

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was refused, for this reason; nothing happened.
    Refused(String),
    /// No answer came in time: it may have been done.
    Unknown,
    /// It was tried and did not work.
    Failed(String),
}

/// One action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// What was done: `device.create`, `connect`, `certificates.renew`, ...
    pub action: &'static str,
    /// Who: `admin`, the name of a policy, `device` and its id as claimed, or `node` for what happens by itself.
    pub who: String,
    /// Network address of whoever asked; empty where nobody did.
    pub from: String,
    /// To what: a device id, a path, a name.
    pub what: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// What else is worth knowing, e.g. that a status changed; empty if nothing.
    pub detail: String,
}

impl AuditRecord {
    /// Something that was done, by `who`, to `what`.
    pub fn done(action: &'static str, who: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            action,
            who: who.into(),
            from: String::new(),
            what: what.into(),
            outcome: AuditOutcome::Done,
            detail: String::new(),
        }
    }

    /// Something that was refused to `who`.
    pub fn refused(
        action: &'static str,
        who: impl Into<String>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self {
            outcome: AuditOutcome::Refused(why.into()),
            ..Self::done(action, who, what)
        }
    }
}
