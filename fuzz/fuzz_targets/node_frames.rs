//! Frames between nodes: calls, streams, Raft's messages, log entries.

#![no_main]

dunlin_fuzz::target!(
    "node_frames",
    dunlin_cluster::fuzzing::node_frames,
    dunlin_cluster::fuzzing::node_frames_seeds
);
