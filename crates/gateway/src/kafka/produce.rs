//! Produce: refused, in words that producers understand.
//!
//! Events come from devices, over their own doors. That Produce is offered at all is for readers: see
//! [`api`](super::api).

use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::call::Fault;
use super::code::Code;

/// Nobody writes here. A producer that awaits no answer cannot be told, and is sent away.
pub(super) fn refuse(request: &ProduceRequest) -> Result<ProduceResponse, Fault> {
    if request.acks == 0 {
        return Err(Fault::Unanswerable);
    }
    let topics = request.topic_data.iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|partition| {
            PartitionProduceResponse::default()
                .with_index(partition.index)
                .with_error_code(Code::TOPIC_AUTHORIZATION_FAILED.0)
                .with_base_offset(-1)
        });
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_partition_responses(partitions.collect())
    });
    Ok(ProduceResponse::default().with_responses(topics.collect()))
}
