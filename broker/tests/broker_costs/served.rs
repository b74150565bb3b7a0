//! Which requests there are.

use std::collections::BTreeMap;

/// Codes that the source serves: what is named where requests are told apart.
pub(crate) fn served() -> BTreeMap<i32, String> {
    let read = |path: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let codes = read("remoting/codes.rs");
    let number = |name: &str| -> i32 {
        let line = codes.lines().find(|line| line.contains(&format!(" {name}: i32")));
        let value = line.and_then(|line| line.split(['=', ';']).nth(1)).expect(name).trim();
        match value.strip_prefix("0x") {
            Some(hex) => i32::from_str_radix(&hex.replace('_', ""), 16).expect(name),
            None => value.parse().expect(name),
        }
    };
    let sources =
        ["handle/dispatch.rs", "handle/table.rs", "handle/routes.rs", "net/pull_again.rs"]
            .map(read)
            .concat();
    let names = sources.split("request::").skip(1).map(|rest| {
        rest.split(|it: char| !it.is_ascii_uppercase() && !it.is_ascii_digit() && it != '_')
            .next()
            .unwrap_or_default()
    });
    let names = names.filter(|name| name.len() > 2);
    names.map(|name| (number(name), name.to_owned())).collect()
}
