//! One robust line.

/// A line through points `(t, y)`, `t` in seconds before now (so now is 0).
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Units per second.
    pub slope: f64,
    /// Level now, shifted by the median of the last residuals, so that it starts from where the series is.
    pub level: f64,
    /// Time of the first point.
    pub start: f64,
    /// Scale of the residuals.
    pub scale: f64,
    /// Standard error of the slope at the effective number of points.
    pub error: f64,
    /// Lag-1 autocorrelation of the residuals, bias-corrected, in [0, 0.95].
    pub correlation: f64,
    /// Times of the points.
    pub times: Vec<f64>,
    /// Residuals, one per point.
    pub residuals: Vec<f64>,
}

/// Fits a Theil-Sen line: the median of all pairwise slopes. `None` below 4 points or when all have one time.
///
/// - `points`: in order of time, at most a few dozen: the work is quadratic.
///
/// # Source
/// Sen 1968, *Estimates of the regression coefficient based on Kendall's tau*; the effective number of points from the
/// lag-1 autocorrelation of the residuals after Hamed and Rao 1998, its small-sample bias after Kendall 1954.
pub(crate) fn theil_sen(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len();
    if n < 4 {
        return None;
    }
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    for (i, a) in points.iter().enumerate() {
        slopes.extend(points[i + 1..].iter().filter(|b| b.0 > a.0).map(|b| (b.1 - a.1) / (b.0 - a.0)));
    }
    let slope = median(&mut slopes)?;
    let mut offsets: Vec<f64> = points.iter().map(|(t, y)| y - slope * t).collect();
    let offset = median(&mut offsets)?;
    let residuals: Vec<f64> = points.iter().map(|(t, y)| y - offset - slope * t).collect();
    let mut sizes: Vec<f64> = residuals.iter().map(|r| r.abs()).collect();
    let clip = match 5.0 * 1.4826 * median(&mut sizes)? {
        c if c > 0.0 => c,
        _ => f64::INFINITY,
    };
    let clipped = || residuals.iter().map(|r| r.clamp(-clip, clip));
    let count = n as f64;
    let start = points[0].0;
    let span = points[n - 1].0 - start;
    let squares: f64 = clipped().map(|r| r * r).sum();
    // A perfect line is not perfectly known: a thousandth of its rise is the least doubt.
    let scale = (squares / (count - 2.0)).sqrt().max(1e-3 * (slope * span).abs());
    let pairs: f64 = clipped().zip(clipped().skip(1)).map(|(a, b)| a * b).sum();
    let raw = if squares > 0.0 { pairs / squares } else { 0.0 };
    let correlation = (raw + (1.0 + 4.0 * raw) / count).clamp(0.0, 0.95);
    let effective = (count * (1.0 - correlation) / (1.0 + correlation)).clamp(3.0, count);
    let mean = points.iter().map(|p| p.0).sum::<f64>() / count;
    let spread = (points.iter().map(|p| (p.0 - mean).powi(2)).sum::<f64>() / count).sqrt();
    // Residuals that are a random walk make the slope twice as uncertain as even this number of points says.
    let error = ((1.0 + correlation) * scale / (spread * effective.sqrt())).max(f64::MIN_POSITIVE);
    let mut last: Vec<f64> = residuals[n - n.min(5)..].to_vec();
    let level = offset + median(&mut last)?;
    let all = [slope, level, scale, error];
    all.iter().all(|x| x.is_finite()).then(|| Line {
        slope,
        level,
        start,
        scale,
        error,
        correlation,
        times: points.iter().map(|p| p.0).collect(),
        residuals,
    })
}

/// Returns the median (the mean of the middle two), `None` when there is nothing. Reorders.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let (below, upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    let upper = *upper;
    if n % 2 == 1 {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(lower + (upper - lower) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sen_1968_worked_example() {
        // Sen 1968, section 6: t = 1 2 3 4 10 12 18, y = 9 15 19 20 45 55 78; the median of the 21 slopes is 4.
        let t = [1.0, 2.0, 3.0, 4.0, 10.0, 12.0, 18.0];
        let y = [9.0, 15.0, 19.0, 20.0, 45.0, 55.0, 78.0];
        let points: Vec<(f64, f64)> = t.into_iter().zip(y).collect();
        assert!((theil_sen(&points).unwrap().slope - 4.0).abs() < 1e-12);
    }

    #[test]
    fn a_fifth_of_wild_points_does_not_move_it() {
        let points: Vec<(f64, f64)> =
            (0..40).map(|i| (f64::from(i), if i % 5 == 0 { 1e6 } else { 2.0 * f64::from(i) })).collect();
        assert!((theil_sen(&points).unwrap().slope - 2.0).abs() < 0.05);
    }

    #[test]
    fn a_step_is_not_straight_and_a_line_is() {
        let step: Vec<(f64, f64)> =
            (0..40).map(|i| (f64::from(i), if i < 20 { 0.0 } else { 10.0 } + f64::from(i % 3) * 0.01)).collect();
        let line = theil_sen(&step).unwrap();
        assert!(line.slope / line.error < 8.0, "t = {}", line.slope / line.error);
        let straight: Vec<(f64, f64)> =
            (0..40).map(|i| (f64::from(i), f64::from(i) + f64::from(i * 7 % 5) * 0.1)).collect();
        let line = theil_sen(&straight).unwrap();
        assert!(line.slope / line.error > 50.0);
    }

    #[test]
    fn degenerate_input_gives_nothing() {
        assert!(theil_sen(&[(0.0, 1.0), (1.0, 2.0)]).is_none());
        assert!(theil_sen(&[(0.0, 1.0); 9]).is_none(), "one time");
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0, 10.0]), Some(2.5));
    }
}
