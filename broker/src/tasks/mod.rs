//! What a broker does unasked: it announces that it leads, delivers delayed messages, and looks after its clients, its index
//! and who should lead.

mod announce;
mod delay;
mod housekeeping;
mod sightings;
