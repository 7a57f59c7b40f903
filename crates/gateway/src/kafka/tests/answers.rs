//! That every request is answered, in each of its versions, in words that clients read.

use kafka_protocol::messages::*;

use super::*;

/// Decodes an answer whole.
fn read(api: Api, frame: &mut Bytes, version: i16) {
    macro_rules! of {
        ($response:ty) => {{
            if <$response>::header_version(version) > 0 {
                assert_eq!(frame.get_u8(), 0);
            }
            <$response>::decode(frame, version).map(drop)
        }};
    }
    let read = match api {
        Api::Produce => of!(ProduceResponse),
        Api::Fetch => of!(FetchResponse),
        Api::ListOffsets => of!(ListOffsetsResponse),
        Api::Metadata => of!(MetadataResponse),
        Api::OffsetCommit => of!(OffsetCommitResponse),
        Api::OffsetFetch => of!(OffsetFetchResponse),
        Api::FindCoordinator => of!(FindCoordinatorResponse),
        Api::JoinGroup => of!(JoinGroupResponse),
        Api::Heartbeat => of!(HeartbeatResponse),
        Api::LeaveGroup => of!(LeaveGroupResponse),
        Api::SyncGroup => of!(SyncGroupResponse),
        Api::DescribeGroups => of!(DescribeGroupsResponse),
        Api::ListGroups => of!(ListGroupsResponse),
        Api::ApiVersions => of!(ApiVersionsResponse),
        Api::OffsetForLeaderEpoch => of!(OffsetForLeaderEpochResponse),
        Api::DescribeConfigs => of!(DescribeConfigsResponse),
        Api::DeleteGroups => of!(DeleteGroupsResponse),
        Api::SaslHandshake => of!(SaslHandshakeResponse),
        Api::SaslAuthenticate => of!(SaslAuthenticateResponse),
    };
    assert!(read.is_ok(), "{api:?} {version}: {read:?}");
    assert!(frame.is_empty(), "{api:?} {version}: nothing follows an answer");
}

async fn ask_everything(fake: &Arc<Fake>) {
    for offer in api::OFFERS {
        if matches!(offer.api, Api::SaslHandshake | Api::SaslAuthenticate) {
            continue;
        }
        for version in offer.min..=offer.max {
            let mut talk = Talk::known(fake).await;
            talk.put(&testing::request(offer.api, version)).await;
            let answer = talk.take().await;
            let mut frame = answer.unwrap_or_else(|| panic!("{:?} {version} has no answer", offer.api));
            assert_eq!(frame.get_i32(), 1);
            read(offer.api, &mut frame, version);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_answered_in_every_version() {
    ask_everything(&hub(2, 3)).await;
}

#[tokio::test(start_paused = true)]
async fn also_when_nothing_can_be_reached() {
    let fake = hub(2, 3);
    fake.set_reachable(0, false);
    fake.set_reachable(1, false);
    fake.set_brokers(Vec::new());
    ask_everything(&fake).await;
}

#[tokio::test]
async fn answers_come_in_the_order_of_requests_and_a_wait_gives_way() {
    let mut talk = Talk::known(&hub(2, 0)).await;
    let began = std::time::Instant::now();
    talk.send(12, &testing::fetch(12, 0).with_max_wait_ms(10_000))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    talk.send(9, &MetadataRequest::default().with_topics(None)).await;
    let fetched = talk.receive::<FetchRequest>(12).await.unwrap();
    assert!(
        fetched.responses[0]
            .partitions
            .iter()
            .all(|partition| partition.error_code == 0)
    );
    assert_eq!(talk.receive::<MetadataRequest>(9).await.unwrap().brokers.len(), 2);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered_in_order() {
    let mut talk = Talk::known(&hub(2, 0)).await;
    let first = talk.correlation + 1;
    for _ in 0..200 {
        talk.send(2, &testing::list_offsets(&[-1])).await;
    }
    for correlation in first..first + 200 {
        assert_eq!(talk.take().await.unwrap().get_i32(), correlation);
    }
}

#[tokio::test]
async fn a_producer_is_refused_or_sent_away() {
    let mut talk = Talk::known(&hub(2, 0)).await;
    let answer = talk.ask(9, testing::produce(-1)).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 29);
    talk.send(9, &testing::produce(0)).await;
    assert_eq!(talk.take().await, None);
}

#[tokio::test]
async fn there_is_one_topic_and_its_partitions_are_shared_out() {
    let mut talk = Talk::known(&hub(16, 0)).await;
    let all = talk.ask(9, MetadataRequest::default().with_topics(None)).await;
    assert_eq!(all.cluster_id.as_deref(), Some("hub"));
    let topic = &all.topics[0];
    assert_eq!(
        (topic.name.as_ref().unwrap().as_str(), topic.partitions.len()),
        (TOPIC, 16)
    );
    for node in [1, 2] {
        assert!(
            topic
                .partitions
                .iter()
                .any(|partition| partition.leader_id == node),
            "{node}"
        );
    }
    let named = |name: &'static str| {
        let name = Some(TopicName(StrBytes::from_static_str(name)));
        metadata_request::MetadataRequestTopic::default().with_name(name)
    };
    let request = MetadataRequest::default().with_topics(Some(vec![named("x"), named("x"), named(TOPIC)]));
    let answer = talk.ask(9, request).await;
    let codes: Vec<i16> = answer.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [0, 3], "each once");
    // None means none from version 1 on, and all before.
    let none = || MetadataRequest::default().with_topics(Some(Vec::new()));
    assert_eq!(talk.ask(1, none()).await.topics.len(), 0);
    assert_eq!(talk.ask(0, none()).await.topics.len(), 1);
}
