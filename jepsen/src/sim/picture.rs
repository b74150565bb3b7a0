//! A picture of a run: lanes of nodes over time, faults as bars, as a file for a browser.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::summary::{Event, Summary};

/// Pixels.
const LEFT: u64 = 90;
const WIDTH: u64 = 1400;
const ROW: u64 = 16;

/// The whole file.
pub(crate) fn html(summary: &Summary) -> String {
    let end = summary.simulated_ms.max(1);
    let x = |ms: u64| LEFT + ms.min(end) * WIDTH / end;
    let lanes: BTreeSet<&str> = summary.events.iter().map(|event| event.lane.as_str()).collect();
    let mut body = String::new();
    let mut top = 30;
    for lane in lanes {
        let events: Vec<_> = summary.events.iter().filter(|event| event.lane == lane).collect();
        let (drawn, rows) = draw_lane(&events, top, &x);
        let height = rows * ROW + 8;
        let _ = write!(
            body,
            "<rect x='0' y='{top}' width='{}' height='{height}' class='lane'/>\
             <text x='4' y='{}' class='name'>{}</text>{drawn}",
            LEFT + WIDTH + 200,
            top + 14,
            escape(lane)
        );
        top += height + 6;
    }
    let mut ticks = String::new();
    for second in 0..=end / 1000 {
        let at = x(second * 1000);
        let _ = write!(
            ticks,
            "<line x1='{at}' y1='20' x2='{at}' y2='{top}' class='tick'/>\
             <text x='{at}' y='14'>{second} s</text>"
        );
    }
    let breaches: String = (summary.breaches.iter())
        .map(|b| format!("<li><b>{}</b> {}</li>", escape(&b.kind), escape(&b.detail)))
        .collect();
    format!(
        "<!doctype html><meta charset='utf-8'><title>seed {seed}</title><style>\
         body{{font:13px sans-serif}} svg text{{font:11px sans-serif}} .lane{{fill:#f6f6f6}} \
         .name{{font-weight:bold}} .tick{{stroke:#ddd}} .bar{{fill:#e8a33d;opacity:.7}} \
         .dot{{fill:#336}}</style><h1>seed {seed} {verdict}</h1><p>{profile}</p>\
         <ul>{breaches}</ul><svg width='{width}' height='{height}'>{ticks}{body}</svg>",
        seed = summary.seed,
        verdict = summary.verdict,
        profile = escape(&summary.profile),
        width = LEFT + WIDTH + 200,
        height = top + 10,
    )
}

/// One lane: each event in the first row in which its text has room.
fn draw_lane(events: &[&Event], top: u64, x: &impl Fn(u64) -> u64) -> (String, u64) {
    let mut rows: Vec<u64> = Vec::new();
    let mut drawn = String::new();
    for event in events {
        let begin = x(event.at_ms);
        let until = event.until_ms.map_or(begin, x);
        let reach = until.max(begin + 12 + event.what.len() as u64 * 6);
        let row = rows.iter().position(|taken| *taken <= begin).unwrap_or_else(|| {
            rows.push(0);
            rows.len() - 1
        });
        rows[row] = reach;
        let y = top + 4 + row as u64 * ROW;
        if event.until_ms.is_some() {
            let width = (until - begin).max(2);
            let _ = write!(
                drawn,
                "<rect x='{begin}' y='{y}' width='{width}' height='{}' class='bar'/>",
                ROW - 3
            );
        } else {
            let _ = write!(drawn, "<circle cx='{begin}' cy='{}' r='3' class='dot'/>", y + 7);
        }
        let _ = write!(
            drawn,
            "<text x='{}' y='{}'><title>{} ms</title>{}</text>",
            begin + 6,
            y + 11,
            event.at_ms,
            escape(&event.what)
        );
    }
    (drawn, rows.len().max(1) as u64)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_drawn_and_text_cannot_break_the_page() {
        let mut summary = Summary::died(7, "a <b> & c".to_owned());
        summary.simulated_ms = 1_000;
        let event = |at_ms, until_ms, what: &str| Event {
            at_ms,
            until_ms,
            lane: "node 1".to_owned(),
            what: what.to_owned(),
        };
        summary.events = vec![event(10, None, "kill"), event(20, Some(90), "partition")];
        let page = html(&summary);
        assert!(page.contains("kill") && page.contains("partition"));
        assert!(page.contains("a &lt;b&gt; &amp; c") && !page.contains("<b> &"));
    }
}
