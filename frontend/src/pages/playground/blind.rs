//! Columns without names, in an order that nobody knows.

/// Whether names are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blind {
    Off,
    /// Hidden; `swapped`: the second column is shown first.
    Hidden {
        swapped: bool,
    },
    /// Shown again, after a vote.
    Told {
        swapped: bool,
    },
}

impl Blind {
    /// Whether votes are being given.
    pub fn is_on(&self) -> bool {
        *self != Self::Off
    }

    /// Whether nobody may see whose answer is whose.
    pub fn hides(&self) -> bool {
        matches!(self, Self::Hidden { .. })
    }

    /// Mixes the columns anew for the next question.
    pub fn shuffle(&mut self) {
        if self.is_on() {
            *self = Self::Hidden { swapped: js_sys::Math::random() < 0.5 };
        }
    }

    /// Whether the second column is shown first.
    pub fn swapped(&self) -> bool {
        matches!(self, Self::Hidden { swapped: true } | Self::Told { swapped: true })
    }

    /// The columns in the order in which they are shown.
    pub fn order<T>(&self, mut lanes: Vec<T>) -> Vec<T> {
        if self.is_on() {
            lanes.truncate(2);
        }
        if self.swapped() {
            lanes.reverse();
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_columns_are_left_in_an_order_that_is_kept_when_it_is_told() {
        let order = |blind: Blind| blind.order(vec![1, 2, 3]);
        assert_eq!(order(Blind::Off), [1, 2, 3]);
        for swapped in [false, true] {
            let expected = if swapped { [2, 1] } else { [1, 2] };
            assert_eq!(order(Blind::Hidden { swapped }), expected);
            assert_eq!(order(Blind::Told { swapped }), expected);
        }
        assert!(Blind::Hidden { swapped: true }.hides() && !Blind::Told { swapped: true }.hides());
    }
}
