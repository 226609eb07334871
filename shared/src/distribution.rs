//! Class distributions: what one head of the reward model says about one answer.

/// Softmax of `logits / temperature`, computed stably. Length `C`.
pub fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = logits.iter().map(|l| ((l - top) / temperature).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|x| x / sum).collect()
}

/// Shannon entropy in nats.
pub fn entropy(p: &[f64]) -> f64 {
    -p.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}

/// Expected class `E[c]`, in class units from 0 to `C - 1`.
pub fn expected_class(p: &[f64]) -> f64 {
    p.iter().enumerate().map(|(c, p)| c as f64 * p).sum()
}

/// Most probable class; the lowest one on a tie.
pub fn argmax(p: &[f64]) -> usize {
    let mut best = 0;
    for (c, &x) in p.iter().enumerate() {
        if x > p[best] {
            best = c;
        }
    }
    best
}

/// Mean negative log-likelihood of `labels` under `softmax(logits / temperature)`.
pub fn negative_log_likelihood(logits: &[Vec<f64>], labels: &[usize], temperature: f64) -> f64 {
    let sum: f64 = logits
        .iter()
        .zip(labels)
        .map(|(l, &y)| {
            let top = l.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = l.iter().map(|x| ((x - top) / temperature).exp()).sum::<f64>().ln();
            log_sum - (l[y] - top) / temperature
        })
        .sum();
    sum / labels.len().max(1) as f64
}

/// Positive number that minimises `loss`, found by golden section on its logarithm in [-3, 3].
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

/// Temperature that minimises the negative log-likelihood on validation logits (Guo et al. 2017). Returns 1 when there is no
/// row. Accuracy is unchanged by it.
pub fn fit_temperature(logits: &[Vec<f64>], labels: &[usize]) -> f64 {
    if labels.is_empty() {
        return 1.0;
    }
    golden_section(|t| negative_log_likelihood(logits, labels, t))
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

    #[test]
    fn the_fitted_temperature_undoes_over_confidence_and_keeps_argmax() {
        // Labels drawn so that the true distribution is (0.75, 0.25); the logits claim it four times too strongly.
        let true_logit = 3f64.ln();
        let logits: Vec<Vec<f64>> = (0..400).map(|_| vec![4.0 * true_logit, 0.0]).collect();
        let labels: Vec<usize> = (0..400).map(|i| usize::from(i % 4 == 0)).collect();
        let temperature = fit_temperature(&logits, &labels);
        assert!((temperature - 4.0).abs() < 0.01, "{temperature}");
        assert_eq!(argmax(&softmax(&logits[0], temperature)), argmax(&softmax(&logits[0], 1.0)));
        assert_eq!(fit_temperature(&[], &[]), 1.0);
    }
}
