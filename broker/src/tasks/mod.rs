//! What a broker does unasked: it announces that it leads, follows the registry of topics, delivers delayed messages,
//! and looks after its clients, its index and who should lead.

mod announce;
mod delay;
mod housekeeping;
mod registry;
mod sightings;

pub(crate) use delay::deliver_delayed;
pub(crate) use registry::follow_registry;
