//! Faults of links, set and healed while the simulation runs.

use std::io::ErrorKind;

use super::Network;
use super::connection::{ACCEPTOR, DIALER};
use super::hosts::HostId;
use super::link::{BusFaults, Latency, Link};
use super::net::{Event, Net};

/// Faults of the links between hosts. A name that no host has is a panic: the test is wrong.
impl Network {
    /// Cuts the link in one direction. Bytes wait at the cut, as with TCP, until it is healed or their
    /// sender gives the connection up; frames between nodes on a bus are lost.
    pub fn cut(&self, from: &str, to: &str) {
        self.with(|net| net.change_link(from, to, "cut", |link| link.cut = true));
    }

    /// Heals the link in one direction: what waited flows.
    pub fn heal(&self, from: &str, to: &str) {
        self.with(|net| {
            net.change_link(from, to, "healed", |link| link.cut = false);
            let (from, to) = (net.hosts.known(from), net.hosts.known(to));
            net.move_held_on(from, to);
        });
    }

    /// Cuts both directions between each of `these` and each of `those`.
    pub fn partition(&self, these: &[&str], those: &[&str]) {
        for (one, other) in pairs(these, those) {
            self.cut(one, other);
            self.cut(other, one);
        }
    }

    /// Heals both directions between each of `these` and each of `those`.
    pub fn unite(&self, these: &[&str], those: &[&str]) {
        for (one, other) in pairs(these, those) {
            self.heal(one, other);
            self.heal(other, one);
        }
    }

    /// True while the link in this direction is cut.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.with(|net| net.links.is_cut(net.hosts.known(from), net.hosts.known(to)))
    }

    /// Heals every link, and takes away every other fault.
    pub fn heal_all(&self) {
        self.with(|net| {
            net.trace.line("network", format_args!("all links healed"));
            let cuts = net.links.cuts();
            net.links.reset();
            net.links.set_bus_everywhere(BusFaults::NONE);
            for (from, to) in cuts {
                net.move_held_on(from, to);
            }
        });
    }

    /// Sets the latency of one direction.
    pub fn set_latency(&self, from: &str, to: &str, latency: Latency) {
        let what = format!("latency {:?} to {:?}", latency.min, latency.max);
        self.with(|net| net.change_link(from, to, &what, |link| link.latency = latency));
    }

    /// Limits one direction to so many bytes per second; none for no limit.
    pub fn set_rate(&self, from: &str, to: &str, rate: Option<u64>) {
        let what = format!("rate {rate:?}");
        self.with(|net| net.change_link(from, to, &what, |link| link.rate = rate));
    }

    /// The probability that a piece which arrives in this direction has one bit changed.
    pub fn set_corruption(&self, from: &str, to: &str, probability: f64) {
        let what = format!("corruption {probability}");
        self.with(|net| net.change_link(from, to, &what, |link| link.corruption = probability));
    }

    /// What happens to requests and responses in one direction ([`Mode::Bus`](super::Mode::Bus)).
    pub fn set_bus_faults(&self, from: &str, to: &str, faults: BusFaults) {
        let what = format!("{faults:?}");
        self.with(|net| net.change_link(from, to, &what, |link| link.bus = faults));
    }

    /// `set_bus_faults` for all links there are and will be.
    pub fn set_bus_faults_everywhere(&self, faults: BusFaults) {
        self.with(|net| {
            net.trace.line("network", format_args!("all links: {faults:?}"));
            net.links.set_bus_everywhere(faults);
        });
    }

    /// Resets all connections between two hosts. What was under way is lost.
    pub fn reset_connections(&self, one: &str, other: &str) {
        self.with(|net| {
            let hosts = [net.hosts.known(one), net.hosts.known(other)];
            net.trace.line("network", format_args!("connections of {one} and {other} reset"));
            let between = net.connections.iter().filter(|(_, connection)| {
                connection.hosts == hosts || connection.hosts == [hosts[1], hosts[0]]
            });
            let ids: Vec<_> = between.map(|(id, _)| *id).collect();
            for id in ids {
                net.break_end(id, DIALER, ErrorKind::ConnectionReset);
                net.break_end(id, ACCEPTOR, ErrorKind::ConnectionReset);
            }
        });
    }
}

fn pairs<'a>(
    these: &'a [&'a str],
    those: &'a [&'a str],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    these.iter().flat_map(move |one| those.iter().map(move |other| (*one, *other)))
}

impl Net {
    fn change_link(&mut self, from: &str, to: &str, what: &str, change: impl FnOnce(&mut Link)) {
        let ends = (self.hosts.known(from), self.hosts.known(to));
        self.trace.line("network", format_args!("{from} to {to}: {what}"));
        change(self.links.get(ends.0, ends.1));
    }

    /// Nothing keeps what was sent to `host` any more, save cuts.
    pub(super) fn move_held(&mut self, host: HostId) {
        let mut senders: Vec<_> = self.connections.values().flat_map(|c| c.hosts).collect();
        senders.sort_unstable();
        senders.dedup();
        for from in senders {
            if !self.is_dark(from, host) {
                self.move_held_on(from, host);
            }
        }
    }

    /// What waits at this link goes on: bytes, and the news of bytes that were taken.
    fn move_held_on(&mut self, from: HostId, to: HostId) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            for side in [DIALER, ACCEPTOR] {
                let pause = self.config.retransmit;
                let Some(connection) = self.connections.get_mut(&id) else { continue };
                if (connection.from(side), connection.to(side)) != (from, to) {
                    continue;
                }
                let told = &mut connection.ends[1 - side];
                told.outbox.unacked -= std::mem::take(&mut told.outbox.owed);
                self.wakes.due.extend(told.writer.take());
                let outbox = &mut connection.ends[side].outbox;
                if outbox.packets.is_empty() || outbox.scheduled {
                    continue;
                }
                let at = self.now + self.random.time(std::time::Duration::ZERO..=pause);
                outbox
                    .packets
                    .iter_mut()
                    .for_each(|packet| packet.arrives = packet.arrives.max(at));
                outbox.last_arrival = outbox.last_arrival.max(at);
                outbox.scheduled = true;
                self.schedule(at, Event::Arrive(id, side));
            }
        }
    }
}
