//! Makes a failing schedule small: leaves out faults as long as the run still fails.

/// What a smaller schedule did.
pub(crate) trait Attempt {
    /// Runs with only these faults. None once the time is over.
    fn fails(&mut self, kept: &[usize]) -> Option<bool>;
}

impl<F: FnMut(&[usize]) -> Option<bool>> Attempt for F {
    fn fails(&mut self, kept: &[usize]) -> Option<bool> {
        self(kept)
    }
}

/// Delta debugging: leaves out ever smaller parts. Gives the smallest failing schedule found, which is
/// `ids` itself if time is over at once.
pub(crate) fn shrink(ids: Vec<usize>, attempt: &mut impl Attempt) -> Vec<usize> {
    if attempt.fails(&[]) == Some(true) {
        return Vec::new();
    }
    let mut kept = ids;
    let mut parts = 2;
    while kept.len() >= 2 {
        let size = kept.len().div_ceil(parts);
        let mut smaller = None;
        for begin in (0..kept.len()).step_by(size) {
            let end = (begin + size).min(kept.len());
            let rest: Vec<usize> = [&kept[..begin], &kept[end..]].concat();
            match attempt.fails(&rest) {
                None => return kept,
                Some(true) => {
                    smaller = Some(rest);
                    break;
                }
                Some(false) => {}
            }
        }
        match smaller {
            Some(rest) => {
                kept = rest;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_faults_that_matter_are_left() {
        let mut runs = 0;
        let mut attempt = |kept: &[usize]| {
            runs += 1;
            Some(kept.contains(&3) && kept.contains(&17))
        };
        assert_eq!(shrink((0..30).collect(), &mut attempt), [3, 17]);
        assert!(runs < 100, "{runs} runs");
    }

    #[test]
    fn a_failure_without_any_fault_needs_none() {
        assert!(shrink((0..30).collect(), &mut |_: &[usize]| Some(true)).is_empty());
    }

    #[test]
    fn when_time_is_over_the_smallest_so_far_is_given() {
        let mut left = 5;
        let mut attempt = |kept: &[usize]| {
            left -= 1;
            (left > 0).then(|| kept.contains(&1))
        };
        let kept = shrink((0..8).collect(), &mut attempt);
        assert!(kept.contains(&1) && kept.len() < 8, "{kept:?}");
    }
}
