//! What older builds left: checkpoints of earlier versions, and locks by earlier rules.

pub(super) mod old_locks;
pub(super) mod version2;
pub(super) mod version3;
