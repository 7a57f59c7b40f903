//! Events on their way out of the hub: to webhooks, and into files.
//!
//! Every endpoint but the built-in one has a runner on one gateway, which holds a lease ([`runner`]). For each shard it
//! reads what routes lead there ([`crate::events::endpoint`]), hands it over in batches ([`batch`], [`target`]), and then
//! has the shard remember how far it came ([`cursor`]). So every event that was acknowledged while the endpoint was there
//! leaves at least once, in the order of its shard; twice where a gateway died in between. What cannot be delivered is
//! tried again for as long as the endpoint is there: it stays in the log meanwhile.

mod batch;
pub(crate) mod cursor;
pub(crate) mod runner;
mod target;
