//! Dunlin from outside: its house rules, one node, real clients, twins, events over AMQP, a cluster of processes, load, what is
//! seen of it, clients that misbehave, broken networks and disks, and power cuts.

mod chaos;
mod clients;
mod cluster;
mod configurations;
mod damage;
mod disk;
mod erase;
mod eventhub;
mod full;
mod hostile;
mod house;
mod jobs;
mod kafka;
mod linked_hubs;
mod load;
mod members;
mod messages;
mod methods;
mod network;
mod observe;
mod power;
mod provisioning;
mod queries;
mod quota;
mod registry;
mod roles;
mod routing;
mod single;
mod twins;
mod uploads;
