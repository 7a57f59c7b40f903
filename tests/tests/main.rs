//! Dunlin from outside: its house rules, one node, real clients, a cluster of processes, and power cuts.

mod clients;
mod cluster;
mod damage;
mod house;
mod members;
mod power;
mod roles;
mod single;
