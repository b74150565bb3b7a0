//! Everything comes back as it went, and garbage is an error.

use std::io;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::{Outcome, Oversized, StorageError};
use crate::member::Role;
use crate::problem::{Problem, ProblemKind};

/// As the other end would receive it.
fn received(frame: OutFrame) -> Frame {
    let OutFrame { kind, log, correlation, head, body } = frame;
    Frame { kind, log, correlation, head, body: body.concat().into() }
}

fn member() -> Member {
    Member::new(3, "10.0.0.3:1").with_client_addr("10.0.0.3:2")
}

fn there_and_back(response: Response) -> Response {
    let frame = received(response.into_frame(LogId(5), 77));
    assert_eq!((frame.log, frame.correlation), (LogId(5), 77));
    Response::from_frame(&frame).expect("readable")
}

#[test]
fn requests_round_trip() {
    let sync = AppendOptions::sync().with_timeout(Duration::from_millis(1500));
    let payloads = vec![Bytes::from_static(b"one"), Bytes::new(), vec![7; 3000].into()];
    let name = "orders".to_owned();
    let requests = [
        Request::append(Bytes::from_static(b"payload"), AppendOptions::default()),
        Request::append(Bytes::new(), sync),
        Request::AppendBatch { options: sync, payloads },
        Request::AppendBatch { options: AppendOptions::default(), payloads: vec![] },
        Request::Read { from: 9, max_bytes: 1 << 40 },
        Request::ReadBarrier,
        Request::Subscribe { start: Start::Begin, last: None },
        Request::Subscribe {
            start: Start::At(u64::MAX),
            last: Some(EntryId { term: 3, index: u64::MAX - 1 }),
        },
        Request::Subscribe { start: Start::Committed, last: None },
        Request::Statuses,
        Request::Logs,
        Request::CreateLog { name: name.clone() },
        Request::DeleteLog { name },
        Request::Members,
        Request::AddLearner { member: member() },
        Request::Promote { node: 1 },
        Request::Remove { node: 2 },
        Request::TransferLog { to: 3 },
        Request::TransferAll { to: 4 },
        Request::NodeStatus,
    ];
    let mut kinds = std::collections::BTreeSet::new();
    for request in requests {
        let frame = received(request.clone().into_frame(LogId(5)));
        kinds.insert(frame.kind);
        assert_eq!(Request::from_frame(&frame), Ok(request));
    }
    assert_eq!(kinds.len(), 16, "a kind was given twice, or left out of the test");
}

#[test]
fn responses_round_trip() {
    let status = Status {
        term: 2,
        leader: Some(member()),
        begin: 1,
        committed: 2,
        end: 3,
        applied: 2,
        members: vec![MemberStatus { member: member(), voter: true, matched: Some(3) }],
        disk_bytes: 4096,
        ..Status::new("orders", 5, 3, Role::Leader)
    };
    let appended = Appended::new(9, 2, 3);
    assert!(matches!(there_and_back(Response::Appended(appended)),
        Response::Appended(back) if back == appended));
    let records =
        vec![Record::new(4, 1, Bytes::new()), Record::new(6, 2, Bytes::from(vec![1; 5000]))];
    let sent = Response::Records { next: 7, records: records.clone() };
    assert!(matches!(there_and_back(sent),
        Response::Records { next: 7, records: back } if back == records));
    assert!(matches!(there_and_back(Response::Barrier(8)), Response::Barrier(8)));
    let statuses = vec![status.clone(), Status { failure: Some("disk".to_owned()), ..status }];
    assert!(matches!(there_and_back(Response::Statuses(statuses.clone())),
        Response::Statuses(back) if back == statuses));
    let problem = Problem {
        peer: Some(2),
        for_ms: 12_000,
        ..Problem::new(ProblemKind::PeerUnreachable, "connection refused")
    };
    let node = NodeStatus { node: member(), logs: statuses, problems: vec![problem] };
    assert!(matches!(there_and_back(Response::NodeStatus(Box::new(node.clone()))),
        Response::NodeStatus(back) if *back == node));
    let logs =
        vec![(LogName::system(), LogId(0)), (LogName::new("orders").expect("a name"), LogId(5))];
    assert!(matches!(there_and_back(Response::Logs(logs.clone())),
        Response::Logs(back) if back == logs));
    let members = vec![MemberStatus { member: member(), voter: false, matched: None }];
    assert!(matches!(there_and_back(Response::Members(members.clone())),
        Response::Members(back) if back == members));
    assert!(matches!(there_and_back(Response::Done), Response::Done));
}

fn storage_error() -> Arc<StorageError> {
    Arc::new(StorageError::io("write", "data/1.seg", io::Error::other("bad cable")))
}

fn append_errors() -> Vec<AppendError> {
    let leader = Some(member());
    let detail = "why".to_owned();
    vec![
        AppendError::NotLeader { leader: leader.clone() },
        AppendError::NotLeader { leader: None },
        AppendError::NoQuorum,
        AppendError::TooLarge { what: Oversized::Record, size: 2, limit: 1 },
        AppendError::TooLarge { what: Oversized::Batch, size: 2, limit: 1 },
        AppendError::TooLarge { what: Oversized::BatchRecords, size: 2, limit: 1 },
        AppendError::Overloaded { inflight: 2, limit: 1 },
        AppendError::DiskFull { path: "data".into() },
        AppendError::UnknownLog { name: "orders".to_owned() },
        AppendError::Closed,
        AppendError::Unreachable { detail: detail.clone() },
        AppendError::Timeout { after: Duration::from_millis(1234) },
        AppendError::LeadershipLost { leader },
        AppendError::Interrupted { detail },
        AppendError::NotForClients { name: "orders".to_owned() },
    ]
}

#[test]
fn append_errors_keep_their_kind_text_outcome_and_leader() {
    for error in append_errors() {
        let Response::AppendFailed(back) = there_and_back(Response::AppendFailed(error.clone()))
        else {
            panic!("not an append's error: {error}")
        };
        assert_eq!(format!("{back:?}"), format!("{error:?}"));
        assert_eq!(back.to_string(), error.to_string());
        assert_eq!((back.outcome(), back.leader()), (error.outcome(), error.leader()));
    }
}

#[test]
fn read_and_admin_errors_come_back_as_they_went() {
    let leader = Some(member());
    let (name, detail, after) = ("orders".to_owned(), "why".to_owned(), Duration::from_secs(3));
    let reads = [
        ReadError::Trimmed { requested: 1, begin: 2 },
        ReadError::NotLeader { leader: leader.clone() },
        ReadError::NoQuorum { after },
        ReadError::UnknownLog { name: name.clone() },
        ReadError::Unreachable { detail: detail.clone() },
        ReadError::Closed,
    ];
    for error in reads {
        let back = there_and_back(Response::ReadFailed(error.clone()));
        assert_eq!(format!("{back:?}"), format!("ReadFailed({error:?})"));
    }
    let mut admin = vec![
        AdminError::NotLeader { leader },
        AdminError::AlreadyBootstrapped,
        AdminError::NotBootstrapped,
        AdminError::Invalid { reason: detail.clone() },
        AdminError::LogExists { name: name.clone() },
        AdminError::UnknownLog { name },
        AdminError::Timeout { after },
        AdminError::Unreachable { detail: detail.clone() },
        AdminError::Interrupted { detail },
        AdminError::Closed,
    ];
    admin.extend(append_errors().into_iter().map(AdminError::Append));
    for error in admin {
        let back = there_and_back(Response::AdminFailed(error.clone()));
        assert_eq!(format!("{back:?}"), format!("AdminFailed({error:?})"));
    }
}

#[test]
fn storage_errors_become_their_text_and_stay_unknown() {
    let Response::AppendFailed(append) =
        there_and_back(Response::AppendFailed(AppendError::Storage(storage_error())))
    else {
        panic!("not an append's error")
    };
    assert_eq!(append.outcome(), Outcome::Unknown);
    let read = there_and_back(Response::ReadFailed(ReadError::Storage(storage_error())));
    let admin = there_and_back(Response::AdminFailed(AdminError::Storage(storage_error())));
    for text in [format!("{append:?}"), format!("{read:?}"), format!("{admin:?}")] {
        assert!(text.contains("Storage") && text.contains("bad cable"), "{text}");
    }
}

#[test]
fn the_bytes_of_an_append_and_its_acknowledgement_are_these() {
    let options = AppendOptions::sync().with_timeout(Duration::from_millis(258));
    let frame = Request::append(Bytes::from_static(b"123456789"), options).into_frame(LogId(5));
    let crc_of_the_check_string = 0xcbf4_3926_u32;
    assert_eq!(frame.kind, 1);
    assert_eq!(frame.head[..5], [1, 2, 1, 0, 0]);
    assert_eq!(frame.head[5..], crc_of_the_check_string.to_le_bytes());
    assert_eq!(frame.body, ["123456789"]);

    let (kind, head) = acknowledgement(&Appended::new(9, 2, 3));
    assert_eq!((kind, &head[..]), (64, &codec::encode(&(9_u64, 2_u64, 3_u32))[..]));
}

#[test]
fn the_bytes_of_a_record_are_these_and_its_payload_is_not_copied() {
    let payload = Bytes::from_static(b"payload");
    let record = Record::new(4, 1, payload.clone());
    let frame = Response::Records { next: 5, records: vec![record] }.into_frame(LogId(5), 0);
    assert_eq!(frame.head, codec::encode(&(5_u64, 1_u64)));
    let [header, sent] = &frame.body[..] else { panic!("{} chunks", frame.body.len()) };
    assert_eq!(header[..20], [4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0]);
    let summed = [&header[..20], b"payload"].concat();
    assert_eq!(header[20..], crc32fast::hash(&summed).to_le_bytes());
    assert_eq!(sent.as_ptr(), payload.as_ptr());
}

#[test]
fn a_payload_that_was_damaged_on_its_way_is_found() {
    let payload = Bytes::from_static(b"payload");
    let options = AppendOptions::default();
    let records = vec![Record::new(4, 1, payload.clone())];
    let frames = [
        Request::append(payload.clone(), options).into_frame(LogId(5)),
        Request::AppendBatch { options, payloads: vec![payload] }.into_frame(LogId(5)),
        Response::Records { next: 5, records }.into_frame(LogId(5), 0),
    ];
    for frame in frames {
        let whole = received(frame);
        for at in 0..whole.body.len() {
            let mut body = whole.body.to_vec();
            body[at] ^= 1;
            let damaged = Frame { body: body.into(), ..whole.clone() };
            let is_response = damaged.kind >= 64;
            let refused = if is_response {
                Response::from_frame(&damaged).is_err()
            } else {
                Request::from_frame(&damaged).is_err()
            };
            assert!(refused, "kind {}: byte {at} was flipped unseen", damaged.kind);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind: u8, head: Vec<u8>, body: Vec<u8>, count: u64) {
        let frame = Frame { kind, log: LogId(1), correlation: 1, head: head.into(), body: body.clone().into() };
        let _ = Request::from_frame(&frame);
        let _ = Response::from_frame(&frame);
        // Counts that lie must not be allocated for.
        prop_assert!(count == 0 || records::read_batch(body.clone().into(), count.max(1000)).is_err());
        prop_assert!(count == 0 || records::read_records(body.into(), count.max(1000)).is_err());
    }
}
