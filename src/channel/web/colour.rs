//! A page's accent: one colour is given, and what can be read on each ground is made of it.

/// In sRGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour([u8; 3]);

/// What WCAG 2.2 asks of text (success criterion 1.4.3).
const READABLE: f64 = 4.5;
/// A little more, as browsers round.
const MARGIN: f64 = 0.1;

impl Colour {
    pub const DEFAULT: Self = Self([0x3b, 0x5b, 0xdb]);
    pub const WHITE: Self = Self([0xff; 3]);
    pub const BLACK: Self = Self([0x0b; 3]);
    /// What text stands on in a light page and in a dark one: the least friendly of its grounds.
    const LIGHT: Self = Self([0xf1, 0xf1, 0xee]);
    const DARK: Self = Self([0x26, 0x27, 0x2b]);

    /// `#rgb` or `#rrggbb`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let long = match digits.len() {
            3 => digits.chars().flat_map(|c| [c, c]).collect(),
            6 => digits.to_owned(),
            _ => return None,
        };
        let mut bytes = [0; 3];
        hex::decode_to_slice(long, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// As CSS has it.
    pub fn to_css(self) -> String {
        format!("#{}", hex::encode(self.0))
    }

    /// Relative luminance (WCAG 2.2).
    fn luminance(self) -> f64 {
        let linear = |byte: u8| {
            let part = f64::from(byte) / 255.0;
            match part <= 0.04045 {
                true => part / 12.92,
                false => ((part + 0.055) / 1.055).powf(2.4),
            }
        };
        let [red, green, blue] = self.0.map(linear);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    fn mixed(self, other: Self, share: f64) -> Self {
        let mut mixed = self.0;
        for (byte, with) in mixed.iter_mut().zip(other.0) {
            let between = f64::from(*byte) * (1.0 - share) + f64::from(with) * share;
            *byte = between.round().clamp(0.0, 255.0) as u8;
        }
        Self(mixed)
    }

    /// What can be read on `ground`: this colour, or as much of it as can.
    fn readable_on(self, ground: Self, towards: Self) -> Self {
        let steps = (0..=20).map(|step| self.mixed(towards, f64::from(step) / 20.0));
        let mut found = steps.filter(|one| one.contrast(ground) >= READABLE + MARGIN);
        found.next().unwrap_or(towards)
    }

    /// Black or white, whichever is read more easily on it.
    fn text_on(self) -> Self {
        match self.contrast(Self::WHITE) >= self.contrast(Self::BLACK) {
            true => Self::WHITE,
            false => Self::BLACK,
        }
    }

    /// The variables that a page's style is made with: those of a light page and of a dark one. A
    /// button is the colour as it was given, unless no text could be read on it.
    pub fn variables(self) -> [String; 2] {
        let of = |ground: Self, towards: Self| {
            let on = self.text_on();
            let (button, on) = match self.contrast(on) >= READABLE + MARGIN {
                true => (self, on),
                false => (self.readable_on(Self::WHITE, Self::BLACK), Self::WHITE),
            };
            format!(
                "--accent:{};--on-accent:{};--link:{}",
                button.to_css(),
                on.to_css(),
                self.readable_on(ground, towards).to_css(),
            )
        };
        [of(Self::LIGHT, Self::BLACK), of(Self::DARK, Self::WHITE)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_read() {
        assert_eq!(Colour::parse("#0a7"), Some(Colour([0x00, 0xaa, 0x77])));
        assert_eq!(Colour::parse("#00aa77"), Colour::parse("#0A7"));
        for bad in ["", "red", "#12", "#1234567", "#ggg", "#0a7;", "0a7"] {
            assert_eq!(Colour::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_that_is_made_of_a_colour_can_be_read() {
        for red in (0..=255u8).step_by(51) {
            for green in (0..=255u8).step_by(51) {
                for blue in (0..=255u8).step_by(51) {
                    let colour = Colour([red, green, blue]);
                    for (ground, variables) in
                        [Colour::LIGHT, Colour::DARK].iter().zip(colour.variables())
                    {
                        let of = |name: &str| {
                            let found = variables.split(';').find_map(|one| one.strip_prefix(name));
                            Colour::parse(found.expect("a variable")).expect("a colour")
                        };
                        let (button, on) = (of("--accent:"), of("--on-accent:"));
                        assert!(button.contrast(on) >= READABLE, "{colour:?}");
                        assert!(of("--link:").contrast(*ground) >= READABLE, "{colour:?}");
                    }
                }
            }
        }
    }
}
