//! What became of the points that were tried.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

/// Failures that are kept, of each family; the others are only counted.
const FAILURES_MAX: usize = 5;

/// What became of one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An error named it.
    Detected,
    /// Everything is as it was.
    Harmless,
    /// Everything is as it was, and the damaged file again, too.
    Repaired,
    /// The log is shorter or older, all of what it holds is right, and nothing was left on the disk that
    /// says that there was more.
    Unwitnessed,
    /// Something is lost or wrong.
    Wrong(String),
}

/// Which point of a family: one number, or for crashes the operation, what it left, and the same for the crash
/// during the recovery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Address(pub(crate) Vec<u64>);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join(":"))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split(':').map(|number| number.parse::<u64>());
        let numbers: Result<Vec<_>, _> = numbers.collect();
        numbers.map(Self).map_err(|_| format!("`{text}` is not a point, such as 7 or 12:3:4:0"))
    }
}

/// A point that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) family: String,
    pub(crate) at: Address,
    pub(crate) why: String,
}

/// Counts of a family.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) family: String,
    /// The only point to try.
    only: Option<Address>,
    pub(crate) points: u64,
    pub(crate) detected: u64,
    pub(crate) harmless: u64,
    pub(crate) repaired: u64,
    pub(crate) unwitnessed: u64,
    pub(crate) wrong: u64,
    pub(crate) panics: u64,
    pub(crate) failures: Vec<Failure>,
}

impl Tally {
    pub(crate) fn new(family: &str, only: Option<Address>) -> Self {
        Self { family: family.to_owned(), only, ..Self::default() }
    }

    /// True unless another point, or one that does not begin so, is the only one to try.
    pub(crate) fn wants(&self, begin: &[u64]) -> bool {
        self.only.as_ref().is_none_or(|only| only.0.starts_with(begin))
    }

    /// True if all points are tried.
    pub(crate) fn is_whole(&self) -> bool {
        self.only.is_none()
    }

    /// Tries a point, unless another one is the only one.
    pub(crate) fn point(&mut self, at: &[u64], attempt: impl FnOnce() -> Outcome) {
        if self.only.as_ref().is_some_and(|only| only.0 != at) {
            return;
        }
        self.points += 1;
        let why = match catch_unwind(AssertUnwindSafe(attempt)) {
            Ok(Outcome::Detected) => return self.detected += 1,
            Ok(Outcome::Harmless) => return self.harmless += 1,
            Ok(Outcome::Repaired) => return self.repaired += 1,
            Ok(Outcome::Unwitnessed) => return self.unwitnessed += 1,
            Ok(Outcome::Wrong(why)) => {
                self.wrong += 1;
                why
            }
            Err(panic) => {
                self.panics += 1;
                format!("panicked: {}", panic_text(&*panic))
            }
        };
        if self.failures.len() < FAILURES_MAX {
            let at = Address(at.to_vec());
            self.failures.push(Failure { family: self.family.clone(), at, why });
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.points += other.points;
        self.detected += other.detected;
        self.harmless += other.harmless;
        self.repaired += other.repaired;
        self.unwitnessed += other.unwitnessed;
        self.wrong += other.wrong;
        self.panics += other.panics;
        self.failures.extend(other.failures);
        self.failures.sort_by(|a, b| a.at.0.cmp(&b.at.0));
        self.failures.truncate(FAILURES_MAX);
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.wrong == 0 && self.panics == 0
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

/// A kind of points.
pub(crate) trait Family: Sync {
    /// As `--only` takes it.
    fn name(&self) -> String;
    /// Parts that may be tried beside each other.
    fn units(&self) -> u64;
    /// The part that a point belongs to, by the first number of its address.
    fn unit_of(&self, first: u64) -> u64;
    /// Tries all points of a part.
    fn try_unit(&self, unit: u64, tally: &mut Tally);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_and_a_panic_is_one() {
        let mut tally = Tally::new("f", None);
        tally.point(&[0], || Outcome::Detected);
        tally.point(&[1], || Outcome::Harmless);
        assert!(tally.is_sound());
        tally.point(&[2], || Outcome::Wrong("lost".to_owned()));
        tally.point(&[3, 1], || panic!("at {}", 3));
        assert!(!tally.is_sound());
        assert_eq!((tally.points, tally.wrong, tally.panics), (4, 1, 1));
        let failures: Vec<_> =
            tally.failures.iter().map(|f| format!("{} {}", f.at, f.why)).collect();
        assert_eq!(failures, ["2 lost", "3:1 panicked: at 3"]);
    }

    #[test]
    fn an_address_picks_one_point_and_the_parts_that_lead_to_it() {
        let only: Address = "3:1:4".parse().expect("an address");
        assert_eq!(only.to_string(), "3:1:4");
        assert!("3:x".parse::<Address>().is_err());
        let mut tally = Tally::new("f", Some(only));
        assert!(tally.wants(&[3]) && tally.wants(&[3, 1]) && !tally.wants(&[2]));
        tally.point(&[3, 1], || Outcome::Wrong("another".to_owned()));
        tally.point(&[3, 1, 4], || Outcome::Harmless);
        assert_eq!((tally.points, tally.harmless), (1, 1));
    }
}
