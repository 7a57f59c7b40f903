//! What members of a group say to each other through the hub, which does not look into it: what they want, and who reads
//! what.
//!
//! Decides the shares ("range"): partitions in order, members by their id, and the first few have one more. Everybody in
//! the group is taken to want the one topic that there is. The layouts are Kafka's `ConsumerProtocolSubscription` and
//! `ConsumerProtocolAssignment` in version 0, which all consumers read.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::TOPIC;
use super::wire::{Answer, Malformed, put_list, put_text};

/// The kind of group, and the name of this way to share out.
pub(super) const PROTOCOL_TYPE: &str = "consumer";
pub(super) const PROTOCOL: &str = "range";

/// Stands where there are no bytes.
const NONE: i32 = -1;

/// What a member wants.
pub(super) fn subscription() -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_list(&mut out, [TOPIC].iter(), |out, topic| put_text(out, topic));
    out.put_i32(NONE);
    out.freeze()
}

/// Who reads what.
pub(super) fn share_out(mut members: Vec<String>, partitions: &[u32]) -> Vec<(String, Vec<u32>)> {
    members.sort_unstable();
    let (least, more) = (
        partitions.len() / members.len().max(1),
        partitions.len() % members.len().max(1),
    );
    let mut rest = partitions;
    let mut shares = Vec::new();
    for (place, member) in members.into_iter().enumerate() {
        let (share, after) = rest.split_at(least + usize::from(place < more));
        shares.push((member, share.to_vec()));
        rest = after;
    }
    shares
}

/// A share, as its member is told.
pub(super) fn assignment(partitions: &[u32]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_list(&mut out, [TOPIC].iter(), |out, topic| {
        put_text(out, topic);
        put_list(out, partitions.iter(), |out, partition| {
            out.put_i32(*partition as i32);
        });
    });
    out.put_i32(NONE);
    out.freeze()
}

/// What a member was told. Nothing at all is an empty share.
pub(super) fn read_assignment(bytes: Bytes) -> Result<Vec<u32>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut answer = Answer::new(bytes);
    let _version = answer.i16()?;
    let topics = answer.list(|answer| {
        let topic = answer.text()?;
        Ok((topic, answer.list(Answer::number)?))
    })?;
    let own = topics
        .into_iter()
        .filter(|(topic, _)| topic.as_deref() == Some(TOPIC));
    Ok(own.flat_map(|(_, partitions)| partitions).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    use kafka_protocol::protocol::Decodable as _;

    #[test]
    fn each_partition_is_one_members() {
        let shares = |members: &[&str], count: u32| {
            let members = members.iter().map(|member| (*member).to_owned()).collect();
            let partitions: Vec<u32> = (0..count).collect();
            let shares = share_out(members, &partitions).into_iter();
            shares.map(|(_, share)| share).collect::<Vec<_>>()
        };
        assert_eq!(shares(&["b", "a"], 5), [vec![0, 1, 2], vec![3, 4]]);
        assert_eq!(shares(&["a", "b"], 1), [vec![0], vec![]]);
        assert!(shares(&[], 3).is_empty());
    }

    #[test]
    fn others_read_what_is_said() {
        let mut told = assignment(&[3, 5]);
        assert_eq!(read_assignment(told.clone()), Ok(vec![3, 5]));
        assert_eq!(told.split_to(2)[..], [0, 0], "the version");
        let theirs = ConsumerProtocolAssignment::decode(&mut told, 0).unwrap();
        assert_eq!(theirs.assigned_partitions[0].partitions, [3, 5]);
        let mut wanted = subscription().slice(2..);
        let theirs = ConsumerProtocolSubscription::decode(&mut wanted, 0).unwrap();
        assert_eq!(theirs.topics[0].as_str(), TOPIC);
        assert_eq!(read_assignment(Bytes::new()), Ok(Vec::new()));
        assert_eq!(read_assignment(Bytes::from_static(&[0])), Err(Malformed::Short));
    }
}
