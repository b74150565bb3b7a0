//! What only the seams may touch: files, sockets, the time of day and random numbers. And what nodes of one process would share.

use super::Finding;
use super::source::Source;

/// Modules of the outside.
const MODULES: [(&str, &str); 5] =
    [("std", "fs"), ("std", "net"), ("tokio", "fs"), ("tokio", "net"), ("process", "id")];

/// What `std::net` has that only names a place.
const ADDRESSES: [&str; 6] =
    ["AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4"];

/// Names of the outside, however they are reached.
const NAMES: [&str; 8] = [
    "OpenOptions",
    "RandomState",
    "SystemTime",
    "TcpListener",
    "TcpSocket",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
];

pub(crate) fn seams(source: &Source, findings: &mut Vec<Finding>) {
    if !source.is_shipped() || source.path.starts_with("src/seam/") {
        return;
    }
    let tokens = source.tokens();
    let word = |at: usize| tokens.get(at).map_or("", |token| token.1);
    for (at, &(line, token)) in tokens.iter().enumerate() {
        if source.is_test(line) {
            continue;
        }
        let module = MODULES.iter().any(|(library, module)| {
            token == *library && word(at + 1) == "::" && word(at + 2) == *module
        });
        // `static NAME: AtomicU32`. The mutant that a process has is one for all nodes on purpose.
        let counts = token == "static" && word(at + 3).starts_with("Atomic");
        if counts && source.path != "src/mutant.rs" {
            let rule = "a counter in a static goes on from one simulated run to the next";
            findings.push(Finding::new(&source.path, line, rule.to_owned()));
        }
        let names_a_place = word(at + 2) == "net" && only_addresses(&tokens[at + 3..]);
        if (module && !names_a_place) || NAMES.contains(&token) {
            let rule = format!(
                "{token}: files, sockets, the time of day and random numbers come from src/seam"
            );
            findings.push(Finding::new(&source.path, line, rule));
        }
    }
}

/// True if what follows `std::net` names addresses and nothing else.
fn only_addresses(tokens: &[(usize, &str)]) -> bool {
    let Some(((_, "::"), rest)) = tokens.split_first() else { return false };
    match rest.split_first() {
        Some(((_, "{"), rest)) => {
            let names = rest.iter().map(|token| token.1).take_while(|token| *token != "}");
            names.filter(|token| *token != ",").all(|name| ADDRESSES.contains(&name))
        }
        first => first.is_some_and(|((_, name), _)| ADDRESSES.contains(name)),
    }
}
