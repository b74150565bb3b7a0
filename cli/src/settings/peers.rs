//! The first voters of a cluster, as tables in the file or as `ID=PEER_ADDR[,CLIENT_ADDR]`.

use quorumlog::Member;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use toml::Value;

/// Most members that a cluster is founded with.
const PEERS_MAX: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    id: u64,
    peer_addr: String,
    #[serde(default)]
    client_addr: String,
}

/// Reads `ID=PEER_ADDR[,CLIENT_ADDR]`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Member, String> {
    let wrong = |why: &str| format!("{text:?}: {why}; write ID=PEER_ADDR[,CLIENT_ADDR]");
    let (id, addrs) = text.split_once('=').ok_or_else(|| wrong("no `=`"))?;
    let id: u64 = id.trim().parse().map_err(|_| wrong("the id is no number"))?;
    let (peer, client) = match addrs.split_once(',') {
        Some((peer, client)) => (peer.trim(), client.trim()),
        None => (addrs.trim(), ""),
    };
    let member = Member::new(id, peer).with_client_addr(client);
    check(&member).map_err(|why| wrong(&why))?;
    Ok(member)
}

/// Reads a list separated by blanks or semicolons.
pub(super) fn parse_list(text: &str) -> Result<Vec<Member>, String> {
    let parts = text.split(|c: char| c.is_whitespace() || c == ';').filter(|part| !part.is_empty());
    parts.map(parse).collect()
}

/// The form that the file has.
pub(super) fn to_value(members: &[Member]) -> Value {
    let table = |member: &Member| {
        let mut table = toml::Table::new();
        let id = i64::try_from(member.id).unwrap_or(i64::MAX);
        table.insert("id".to_owned(), Value::Integer(id));
        table.insert("peer_addr".to_owned(), Value::String(member.peer_addr.clone()));
        table.insert("client_addr".to_owned(), Value::String(member.client_addr.clone()));
        Value::Table(table)
    };
    Value::Array(members.iter().map(table).collect())
}

/// Reads the form that the file has.
pub(super) fn from_value(value: &Value) -> Result<Vec<Member>, String> {
    let peers = Vec::<Peer>::deserialize(value.clone())
        .map_err(|error| format!("no list of peers: {}", error.to_string().trim()))?;
    if peers.len() > PEERS_MAX {
        return Err(format!("{} peers are over the limit of {PEERS_MAX}", peers.len()));
    }
    let mut members: Vec<Member> = Vec::with_capacity(peers.len());
    for peer in peers {
        let member = Member::new(peer.id, peer.peer_addr).with_client_addr(peer.client_addr);
        check(&member)?;
        if members.iter().any(|other| other.id == member.id) {
            return Err(format!("node {} is listed twice", member.id));
        }
        members.push(member);
    }
    Ok(members)
}

/// For the settings, where the list was checked already.
pub(super) fn members<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Member>, D::Error> {
    from_value(&Value::deserialize(from)?).map_err(D::Error::custom)
}

fn check(member: &Member) -> Result<(), String> {
    if member.id == 0 {
        Err("the id must be 1 or more".to_owned())
    } else if !member.peer_addr.contains(':') {
        Err(format!("{:?} is no host:port", member.peer_addr))
    } else if !member.client_addr.is_empty() && !member.client_addr.contains(':') {
        Err(format!("{:?} is no host:port", member.client_addr))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_reads_with_and_without_its_client_address() {
        assert_eq!(parse("2=b:1"), Ok(Member::new(2, "b:1")));
        assert_eq!(parse("2=b:1,b:2"), Ok(Member::new(2, "b:1").with_client_addr("b:2")));
        for bad in ["", "2", "x=b:1", "0=b:1", "2=b", "2=b:1,c"] {
            let why = parse(bad).expect_err(bad);
            assert!(why.contains("ID=PEER_ADDR"), "{why}");
        }
    }

    #[test]
    fn a_list_survives_the_way_through_the_file() {
        let members = parse_list("1=a:1,a:2; 2=b:1\n3=c:1").expect("list");
        assert_eq!(members.len(), 3);
        assert_eq!(from_value(&to_value(&members)), Ok(members));
    }

    #[test]
    fn a_peer_listed_twice_is_refused() {
        let members = parse_list("1=a:1 1=b:1").expect("list");
        assert!(from_value(&to_value(&members)).expect_err("twice").contains("twice"));
    }
}
