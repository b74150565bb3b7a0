//! What nodes say about themselves, as control data. The public types may grow; these may not within one version of the
//! protocol.

use serde::{Deserialize, Serialize};

use crate::member::{MemberForm, MemberStatus, NodeId, Role, Status};
use crate::problem::{NodeStatus, Problem, ProblemKind};

#[derive(Serialize, Deserialize)]
pub(super) struct MemberStatusForm {
    member: MemberForm,
    voter: bool,
    matched: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StatusForm {
    log: String,
    log_id: u64,
    node_id: NodeId,
    role: RoleForm,
    term: u64,
    leader: Option<MemberForm>,
    begin: u64,
    committed: u64,
    end: u64,
    applied: u64,
    members: Vec<MemberStatusForm>,
    disk_bytes: u64,
    failure: Option<String>,
    suspect: bool,
    stable: u64,
    suspect_elections: u64,
    rewinds: u64,
    lost_records_max: u64,
}

#[derive(Serialize, Deserialize)]
struct ProblemForm {
    kind: ProblemKindForm,
    log: Option<String>,
    peer: Option<NodeId>,
    reason: String,
    for_ms: u64,
    needs_restart: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct NodeStatusForm {
    node: MemberForm,
    logs: Vec<StatusForm>,
    problems: Vec<ProblemForm>,
}

/// The same value as another type, in a list.
pub(super) fn all<T, U: From<T>>(values: Vec<T>) -> Vec<U> {
    values.into_iter().map(U::from).collect()
}

/// The form of an enum of which no variant has fields, and the conversions both ways.
macro_rules! enum_form {
    ($form:ident of $public:ident: $($variant:ident),+ $(,)?) => {
        #[derive(Serialize, Deserialize)]
        enum $form {
            $($variant,)+
        }

        impl From<$public> for $form {
            fn from(value: $public) -> Self {
                match value {
                    $($public::$variant => Self::$variant,)+
                }
            }
        }

        impl From<$form> for $public {
            fn from(form: $form) -> Self {
                match form {
                    $($form::$variant => Self::$variant,)+
                }
            }
        }
    };
}

/// Conversions both ways between two structs with the same fields; those behind `as` are converted by a function.
macro_rules! same_fields {
    ($public:ident, $form:ident: $($field:ident $(as $convert:expr)?),+ $(,)?) => {
        impl From<$public> for $form {
            fn from(value: $public) -> Self {
                Self { $($field: same_fields!(@ value.$field $(, $convert)?),)+ }
            }
        }

        impl From<$form> for $public {
            fn from(form: $form) -> Self {
                Self { $($field: same_fields!(@ form.$field $(, $convert)?),)+ }
            }
        }
    };
    (@ $value:expr) => { $value };
    (@ $value:expr, $convert:expr) => { $convert($value) };
}

enum_form!(RoleForm of Role: Leader, Follower, Candidate, Learner, Stopped);
enum_form!(
    ProblemKindForm of ProblemKind:
    LogStopped, LogDamaged, LogNotOpen, TaskPanicked, DataLost, Duplicate, NotReachedBack,
    PeerUnreachable, PeerLostData, PeerDuplicate, CheckpointWaits, OtherVersion, LogSuspect, Removed,
);
same_fields!(MemberStatus, MemberStatusForm: member as From::from, voter, matched);
same_fields!(
    Status, StatusForm:
    log, log_id, node_id, role as From::from, term, leader as |leader: Option<_>| leader.map(From::from),
    begin, committed, end, applied, members as all, disk_bytes, failure, suspect, stable,
    suspect_elections, rewinds, lost_records_max,
);
same_fields!(
    Problem, ProblemForm: kind as From::from, log, peer, reason, for_ms, needs_restart,
);
same_fields!(NodeStatus, NodeStatusForm: node as From::from, logs as all, problems as all);
