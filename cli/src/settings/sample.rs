//! Writes settings as a commented configuration file.

use std::fmt::Write as _;

use toml::Value;

use super::Origin;
use super::keys::{KEYS, Key};

const HEAD: &str = "\
# Configuration of a quorumlog node. Each setting can also be given as an environment variable,
# QUORUMLOG__SECTION__KEY, or as a flag, --set section.key=VALUE. Flags win over the environment,
# the environment over this file, this file over the defaults.
";

/// Every setting at its default. Those without one are commented out, except for the required two.
pub(super) fn sample() -> String {
    render_with(|key| {
        let required = matches!(key.path, "node_id" | "data_dir");
        let given = if required { key.example } else { key.default };
        (!given.is_empty()).then(|| (given.to_owned(), None))
    })
}

/// The settings that `value` gives.
pub(super) fn render<'a>(value: impl Fn(&Key) -> Option<(&'a Value, &'a Origin)>) -> String {
    render_with(|key| {
        let (value, origin) = value(key)?;
        let origin = (*origin != Origin::Default).then(|| origin.to_string());
        Some((value.to_string(), origin))
    })
}

fn render_with(line: impl Fn(&Key) -> Option<(String, Option<String>)>) -> String {
    let mut text = HEAD.to_owned();
    let mut section = "";
    for key in KEYS {
        let (at, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if at != section {
            let _ = write!(text, "\n[{at}]");
            text.push('\n');
            section = at;
        } else {
            text.push('\n');
        }
        let _ = writeln!(text, "# {}", key.doc);
        let _ = match line(key) {
            Some((value, Some(origin))) => writeln!(text, "{name} = {value} # from {origin}"),
            Some((value, None)) => writeln!(text, "{name} = {value}"),
            None => writeln!(text, "# {name} = {}", key.example),
        };
    }
    text
}
