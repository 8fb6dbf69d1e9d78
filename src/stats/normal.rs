//! The normal distribution, the same to the last digit on every platform.
//!
//! # Source
//!
//! The quantile is P. J. Acklam's rational approximation (relative error below 1.15e-9) with one
//! step of Halley's method, which takes it to the precision of `libm::erfc`.

use core::f64::consts::{PI, SQRT_2};

/// The share of a standard normal distribution below `x`.
pub fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// The number below which a share `p` of a standard normal distribution lies. Infinite at 0 and 1.
pub fn quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    let x = approximate(p);
    let error = cdf(x) - p;
    let step = error * libm::sqrt(2.0 * PI) * libm::exp(x * x / 2.0);
    x - step / (1.0 + x * step / 2.0)
}

/// Where the approximation of the tails takes over.
const TAIL: f64 = 0.024_25;

fn approximate(p: f64) -> f64 {
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    if p < TAIL {
        let q = libm::sqrt(-2.0 * libm::log(p));
        return polynomial(&C, q) / polynomial(&D, q);
    }
    if p > 1.0 - TAIL {
        let q = libm::sqrt(-2.0 * libm::log(1.0 - p));
        return -polynomial(&C, q) / polynomial(&D, q);
    }
    let q = p - 0.5;
    let r = q * q;
    polynomial(&A, r) * q / polynomial(&B, r)
}

/// By Horner's rule, the highest power first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_tables() {
        for (p, x) in [
            (0.5, 0.0),
            (0.841_344_746_068_543, 1.0),
            (0.975, 1.959_963_984_540_054),
            (0.995, 2.575_829_303_548_901),
            (0.001, -3.090_232_306_167_813),
            (0.024, -1.977_368_428_179_472),
        ] {
            assert!((quantile(p) - x).abs() < 1e-9, "{p}: {} {x}", quantile(p));
            assert!((cdf(x) - p).abs() < 1e-12, "{x}: {} {p}", cdf(x));
        }
        assert!(quantile(0.0) == f64::NEG_INFINITY && quantile(1.0) == f64::INFINITY);
    }
}
