//! Where the middle of a few numbers is.

/// The median: the middle number, or the mean of the two in the middle. `None` of nothing.
pub fn median(values: &mut [f64]) -> Option<f64> {
    let upper_at = values.len() >> 1;
    if values.is_empty() {
        return None;
    }
    let is_odd = values.len() & 1 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(upper_at, f64::total_cmp);
    let upper = *upper;
    if is_odd {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(f64::midpoint(lower, upper))
}

/// The Hodges-Lehmann estimate: the median of the means of all pairs, each number with itself among
/// them. Nearly as good as the mean where errors are normal, and not moved by one seed gone wild.
/// `None` of nothing.
///
/// # Source
///
/// Hodges, Lehmann: Estimates of location based on rank tests, Ann. Math. Statist. 34 (1963).
pub fn hodges_lehmann(values: &[f64]) -> Option<f64> {
    let mut means = Vec::new();
    for (at, a) in values.iter().enumerate() {
        means.extend(values.iter().skip(at).map(|b| f64::midpoint(*a, *b)));
    }
    median(&mut means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn hodges_lehmann_agrees_with_textbooks() {
        assert_eq!(hodges_lehmann(&[]), None);
        assert_eq!(hodges_lehmann(&[1.0, 5.0]), Some(3.0));
        // Darwin's maize, crossed less self-fertilised, eighths of an inch: a mean of 20.9, and two
        // pairs that drag it down.
        let maize = [49., -67., 8., 16., 6., 23., 28., 41., 14., 29., 56., 24., 75., 60., -48.];
        assert_eq!(hodges_lehmann(&maize), Some(25.0));
        // One that is wild moves it by little, a mean by much.
        assert_eq!(hodges_lehmann(&[1.0, 2.0, 3.0, 4.0, 1000.0]), Some(3.0));
    }
}
