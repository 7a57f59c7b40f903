//! Load for any MQTT server: how fast it answers, how long that takes, and whether it kept everything.
//!
//! With a schedule the load is open: messages leave when they are due, whatever was answered, and are
//! counted from then, so a server that stalls cannot hide it. Without one each client keeps its window
//! full.
//!
//! [`engine`] runs a [`plan`], thread by thread (`worker`); [`publisher`] and `subscriber` are the clients as pure machines,
//! [`schedule`] says when, [`content`] what, [`template`] where. [`figures`] is what came of it,
//! [`live`] shows it on the way, [`report`] puts it into words and on a page, [`verify`] judges what the server kept. [`sink`] is a
//! server that acknowledges everything, [`ceiling`] what the generator reaches against it. [`compare`]
//! takes several servers in turn, [`merge`] makes several generators one. [`calls`], [`provisions`], [`readers`] and [`services`] are other loads, on methods,
//! on provisioning, on events over Kafka and on the rest of what services do: tasks that begin by `pace` and are counted by
//! `meter`, so that the same figures come of them. `course` makes seconds of what was counted.

pub mod calls;
pub mod ceiling;
pub mod compare;
mod connection;
pub mod content;
mod course;
pub mod dial;
pub mod engine;
pub mod figures;
pub mod files;
pub mod hdr;
pub mod live;
pub mod merge;
mod meter;
mod pace;
mod packet;
pub mod plan;
pub mod provisions;
pub mod publisher;
pub mod readers;
pub mod recorder;
pub mod report;
pub mod schedule;
pub mod services;
pub mod sink;
mod subscriber;
pub mod template;
mod timer;
pub mod trust;
pub mod verify;
mod worker;
