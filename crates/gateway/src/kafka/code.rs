//! Kafka's error codes, as far as this door has use for them.

use std::fmt;

use dunlin_model::group::GroupError;

/// A number that clients know the meaning of. See "Error Codes" in Kafka's protocol guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub i16);

macro_rules! codes {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        impl Code {
            $(#[doc = $meaning] pub const $name: Self = Self($number);)*
        }

        impl fmt::Display for Code {
            /// Kafka's name of it, or the number.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($number => f.write_str(stringify!($name)),)*
                    other => write!(f, "code {other}"),
                }
            }
        }
    };
}

codes! {
    UNKNOWN_SERVER_ERROR = -1, "What nobody foresaw.";
    NONE = 0, "No error.";
    OFFSET_OUT_OF_RANGE = 1, "The offset is before the first kept or behind the next one. Readers begin elsewhere, so it is never said of a partition that cannot be reached.";
    UNKNOWN_TOPIC_OR_PARTITION = 3, "There is no such topic or partition.";
    LEADER_NOT_AVAILABLE = 5, "Nobody leads the partition just now; try again.";
    NOT_LEADER_OR_FOLLOWER = 6, "The partition cannot be reached from here just now; ask for metadata and try again.";
    REQUEST_TIMED_OUT = 7, "No answer in time; try again.";
    OFFSET_METADATA_TOO_LARGE = 12, "What is to be kept with the offset is too long.";
    COORDINATOR_LOAD_IN_PROGRESS = 14, "The group is not readable yet; try again.";
    COORDINATOR_NOT_AVAILABLE = 15, "The group cannot be reached just now; find its coordinator and try again.";
    NOT_COORDINATOR = 16, "The group is served elsewhere; find its coordinator and try again.";
    ILLEGAL_GENERATION = 22, "The member speaks of another generation.";
    INCONSISTENT_GROUP_PROTOCOL = 23, "The member shares no protocol with the others.";
    INVALID_GROUP_ID = 24, "That is no name for a group.";
    UNKNOWN_MEMBER_ID = 25, "The group has no such member.";
    INVALID_SESSION_TIMEOUT = 26, "The session time is out of bounds.";
    REBALANCE_IN_PROGRESS = 27, "The group is about to share out anew; join again.";
    INVALID_COMMIT_OFFSET_SIZE = 28, "That is no offset.";
    TOPIC_AUTHORIZATION_FAILED = 29, "Not with these rights: nobody writes here over Kafka.";
    GROUP_AUTHORIZATION_FAILED = 30, "Not with these rights.";
    UNSUPPORTED_SASL_MECHANISM = 33, "PLAIN alone is spoken.";
    ILLEGAL_SASL_STATE = 34, "Not at this point of signing in.";
    UNSUPPORTED_VERSION = 35, "That version is not spoken.";
    INVALID_REQUEST = 42, "The request contradicts itself, or asks for what there is not.";
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43, "The log cannot answer that.";
    SASL_AUTHENTICATION_FAILED = 58, "The password does not count.";
    NON_EMPTY_GROUP = 68, "The group has members.";
    GROUP_ID_NOT_FOUND = 69, "There is no such group.";
    FETCH_SESSION_ID_NOT_FOUND = 70, "There is no such fetch session: there are none at all.";
    FENCED_LEADER_EPOCH = 74, "The reader knows an older life of the log.";
    UNKNOWN_LEADER_EPOCH = 75, "The reader knows a newer life of the log than this gateway.";
    MEMBER_ID_REQUIRED = 79, "Join again with the id that was given.";
    GROUP_MAX_SIZE_REACHED = 81, "The group has as many members as it may.";
    FENCED_INSTANCE_ID = 82, "Another member has this instance id.";
}

impl From<&GroupError> for Code {
    fn from(error: &GroupError) -> Self {
        Self(error.code())
    }
}

impl Code {
    /// Whether asking again may help though nothing was changed meanwhile: nobody could be reached.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::COORDINATOR_LOAD_IN_PROGRESS
                | Self::COORDINATOR_NOT_AVAILABLE
                | Self::NOT_COORDINATOR
                | Self::REQUEST_TIMED_OUT
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::ResponseError;

    #[test]
    fn names_are_those_of_kafka() {
        let mut count = 0;
        for number in -1..=130 {
            let name = Code(number).to_string();
            if name.starts_with("code ") {
                continue;
            }
            count += 1;
            let theirs = match ResponseError::try_from_code(number) {
                None => "None".to_owned(),
                Some(error) => format!("{error:?}"),
            };
            assert_eq!(
                name.replace('_', "").to_lowercase(),
                theirs.to_lowercase(),
                "{number}"
            );
        }
        assert_eq!(count, 34);
    }
}
