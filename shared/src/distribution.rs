//! Class distributions: what one head of the reward model says about one answer.

/// Softmax of `logits / temperature`, computed stably. Length `C`.
///
/// ```
/// use moslim_shared::distribution::softmax;
/// let p = softmax(&[0.0, 3f64.ln()], 1.0);
/// assert!((p[0] - 0.25).abs() < 1e-12 && (p[1] - 0.75).abs() < 1e-12);
/// ```
pub fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = logits.iter().map(|l| ((l - top) / temperature).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|x| x / sum).collect()
}

/// Shannon entropy in nats.
///
/// ```
/// use moslim_shared::distribution::entropy;
/// assert!((entropy(&[0.5, 0.5]) - 2f64.ln()).abs() < 1e-12);
/// ```
pub fn entropy(p: &[f64]) -> f64 {
    -p.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}

/// Expected class `E[c]`, in class units from 0 to `C - 1`.
///
/// ```
/// use moslim_shared::distribution::expected_class;
/// assert_eq!(expected_class(&[0.25, 0.25, 0.5]), 1.25);
/// ```
pub fn expected_class(p: &[f64]) -> f64 {
    p.iter().enumerate().map(|(c, p)| c as f64 * p).sum()
}

/// Most probable class; the lowest one on a tie.
///
/// ```
/// assert_eq!(moslim_shared::distribution::argmax(&[0.4, 0.4, 0.2]), 0);
/// ```
pub fn argmax(p: &[f64]) -> usize {
    let mut best = 0;
    for (c, &x) in p.iter().enumerate() {
        if x > p[best] {
            best = c;
        }
    }
    best
}

/// Positive number that minimises `loss`, found by golden section on its logarithm in [-3, 3].
///
/// ```
/// use moslim_shared::distribution::golden_section;
/// let found = golden_section(|t| (t - 2.0) * (t - 2.0));
/// assert!((found - 2.0).abs() < 1e-3);
/// ```
pub fn golden_section(loss: impl Fn(f64) -> f64) -> f64 {
    let loss = |u: f64| loss(u.exp());
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (-3.0, 3.0);
    let (mut c, mut d) = (b - golden * (b - a), a + golden * (b - a));
    let (mut fc, mut fd) = (loss(c), loss(d));
    while b - a > 1e-4 {
        if fc < fd {
            (b, d, fd) = (d, c, fc);
            c = b - golden * (b - a);
            fc = loss(c);
        } else {
            (a, c, fc) = (c, d, fd);
            d = a + golden * (b - a);
            fd = loss(d);
        }
    }
    f64::exp((a + b) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_entropy_expectation() {
        let p = softmax(&[0.0, 0.0, 1e3], 1e3);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((p[2] / p[0] - 1f64.exp()).abs() < 1e-9);
        assert!((entropy(&[0.5, 0.5]) - 2f64.ln()).abs() < 1e-12);
        assert_eq!(entropy(&[1.0, 0.0]), 0.0);
        assert!((expected_class(&[0.1, 0.2, 0.7]) - 1.6).abs() < 1e-12);
        assert_eq!(argmax(&[0.4, 0.4, 0.2]), 0);
    }
}
