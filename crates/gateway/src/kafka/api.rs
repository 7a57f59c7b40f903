//! Which requests are answered, in which versions.
//!
//! Decides what is offered in `ApiVersions`, and the shape of each request, which [`shape`](super::shape) checks before
//! it is decoded. Clients pick the highest version that both know, so what is not offered is not sent: Fetch ends at 12
//! since 13 names topics by ids that we have none of, and Metadata at 9 for the same reason; ListOffsets at 6, since 7
//! asks for the newest time; OffsetCommit and OffsetFetch at 8, since 9 is for the other kind of groups (KIP-848).
//!
//! Produce is offered and always refused: librdkafka takes a broker without it for one that knows no record batches.

use super::shape::Field;
use super::shape::Field as F;
use super::shape::Shape::{self, Blob, Bytes, List, Text, Texts, Words};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "Kafka's names")]
pub(crate) enum Api {
    Produce,
    Fetch,
    ListOffsets,
    Metadata,
    OffsetCommit,
    OffsetFetch,
    FindCoordinator,
    JoinGroup,
    Heartbeat,
    LeaveGroup,
    SyncGroup,
    DescribeGroups,
    ListGroups,
    SaslHandshake,
    ApiVersions,
    OffsetForLeaderEpoch,
    DescribeConfigs,
    SaslAuthenticate,
    DeleteGroups,
}

/// What is offered of a kind of request.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) api: Api,
    /// Kafka's number of it.
    pub(crate) key: i16,
    /// Lowest version.
    pub(crate) min: i16,
    /// Highest version.
    pub(crate) max: i16,
    /// First version with compact lengths and tagged fields.
    pub(crate) flexible: i16,
    /// What stands in the request.
    pub(crate) fields: &'static [Field],
}

const fn offer(api: Api, key: i16, (min, max): (i16, i16), flexible: i16, fields: &'static [Field]) -> Offer {
    Offer {
        api,
        key,
        min,
        max,
        flexible,
        fields,
    }
}

/// Beyond every version.
const NEVER: i16 = i16::MAX;
const I8: Shape = Bytes(1);
const I16: Shape = Bytes(2);
const I32: Shape = Bytes(4);
const I64: Shape = Bytes(8);

/// All of it, by key. See "The Messages" in Kafka's protocol guide.
pub(crate) const OFFERS: &[Offer] = &[
    offer(
        Api::Produce,
        0,
        (3, 9),
        9,
        &[
            F::always(Text),
            F::always(I16),
            F::always(I32),
            F::always(List(&[
                F::always(Text),
                F::always(List(&[F::always(I32), F::always(Blob)])),
            ])),
        ],
    ),
    offer(
        Api::Fetch,
        1,
        (4, 12),
        12,
        &[
            F::always(Bytes(4 + 4 + 4 + 4 + 1)),
            F::from(7, Bytes(4 + 4)),
            F::always(List(&[
                F::always(Text),
                F::always(List(&[
                    F::always(I32),
                    F::from(9, I32),
                    F::always(I64),
                    F::from(12, I32),
                    F::from(5, I64),
                    F::always(I32),
                ])),
            ])),
            F::from(7, List(&[F::always(Text), F::always(Words(4))])),
            F::from(11, Text),
        ],
    ),
    offer(
        Api::ListOffsets,
        2,
        (1, 6),
        6,
        &[
            F::always(I32),
            F::from(2, I8),
            F::always(List(&[
                F::always(Text),
                F::always(List(&[F::always(I32), F::from(4, I32), F::always(I64)])),
            ])),
        ],
    ),
    offer(
        Api::Metadata,
        3,
        (0, 9),
        9,
        &[
            F::always(List(&[F::always(Text)])),
            F::from(4, I8),
            F::from(8, Bytes(2)),
        ],
    ),
    offer(
        Api::OffsetCommit,
        8,
        (2, 8),
        8,
        &[
            F::always(Text),
            F::always(I32),
            F::always(Text),
            F::from(7, Text),
            F::until(4, I64),
            F::always(List(&[
                F::always(Text),
                F::always(List(&[
                    F::always(I32),
                    F::always(I64),
                    F::from(6, I32),
                    F::always(Text),
                ])),
            ])),
        ],
    ),
    offer(
        Api::OffsetFetch,
        9,
        (1, 8),
        6,
        &[
            F::until(7, Text),
            F::until(7, List(&[F::always(Text), F::always(Words(4))])),
            F::from(
                8,
                List(&[
                    F::always(Text),
                    F::always(List(&[F::always(Text), F::always(Words(4))])),
                ]),
            ),
            F::from(7, I8),
        ],
    ),
    offer(
        Api::FindCoordinator,
        10,
        (0, 4),
        3,
        &[F::until(3, Text), F::from(1, I8), F::from(4, Texts)],
    ),
    offer(
        Api::JoinGroup,
        11,
        (0, 9),
        6,
        &[
            F::always(Text),
            F::always(I32),
            F::from(1, I32),
            F::always(Text),
            F::from(5, Text),
            F::always(Text),
            F::always(List(&[F::always(Text), F::always(Blob)])),
            F::from(8, Text),
        ],
    ),
    offer(
        Api::Heartbeat,
        12,
        (0, 4),
        4,
        &[F::always(Text), F::always(I32), F::always(Text), F::from(3, Text)],
    ),
    offer(
        Api::LeaveGroup,
        13,
        (0, 5),
        4,
        &[
            F::always(Text),
            F::until(2, Text),
            F::from(3, List(&[F::always(Text), F::always(Text), F::from(5, Text)])),
        ],
    ),
    offer(
        Api::SyncGroup,
        14,
        (0, 5),
        4,
        &[
            F::always(Text),
            F::always(I32),
            F::always(Text),
            F::from(3, Text),
            F::from(5, Text),
            F::from(5, Text),
            F::always(List(&[F::always(Text), F::always(Blob)])),
        ],
    ),
    offer(
        Api::DescribeGroups,
        15,
        (0, 5),
        5,
        &[F::always(Texts), F::from(3, I8)],
    ),
    offer(Api::ListGroups, 16, (0, 4), 3, &[F::from(4, Texts)]),
    offer(Api::SaslHandshake, 17, (0, 1), NEVER, &[F::always(Text)]),
    offer(
        Api::ApiVersions,
        18,
        (0, 4),
        3,
        &[F::from(3, Text), F::from(3, Text)],
    ),
    offer(
        Api::OffsetForLeaderEpoch,
        23,
        (2, 4),
        4,
        &[
            F::from(3, I32),
            F::always(List(&[
                F::always(Text),
                F::always(List(&[F::always(Bytes(4 + 4 + 4))])),
            ])),
        ],
    ),
    offer(
        Api::DescribeConfigs,
        32,
        (1, 4),
        4,
        &[
            F::always(List(&[F::always(I8), F::always(Text), F::always(Texts)])),
            F::always(I8),
            F::from(3, I8),
        ],
    ),
    offer(Api::SaslAuthenticate, 36, (0, 2), 2, &[F::always(Blob)]),
    offer(Api::DeleteGroups, 42, (0, 2), 2, &[F::always(Texts)]),
];

/// What is offered under `key`.
pub(crate) fn find(key: i16) -> Option<&'static Offer> {
    OFFERS.iter().find(|offer| offer.key == key)
}

impl Offer {
    /// Whether `version` is among those offered.
    pub(crate) fn has(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether lengths are compact and fields tagged in `version`.
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiKey;

    #[test]
    fn what_is_offered_is_what_the_codec_knows() {
        assert!(OFFERS.is_sorted_by_key(|offer| offer.key));
        for offer in OFFERS {
            let key = ApiKey::try_from(offer.key).unwrap();
            assert_eq!(format!("{key:?}"), format!("{:?}", offer.api));
            let known = key.valid_versions();
            assert!(known.min <= offer.min && offer.max <= known.max, "{key:?}");
            for version in offer.min..=offer.max {
                let is_flexible = key.request_header_version(version) == 2;
                assert_eq!(is_flexible, offer.is_flexible(version), "{key:?} {version}");
            }
        }
    }
}
