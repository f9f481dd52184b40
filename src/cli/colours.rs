//! The demo's sample: the named colours of CSS as vectors of three numbers.

/// Names and values (0xRRGGBB) of the CSS named colours, without the second spellings with "grey".
pub const COLOURS: &[(&str, u32)] = &[
    ("aliceblue", 0xf0f8ff),
    ("antiquewhite", 0xfaebd7),
    ("aqua", 0x00ffff),
    ("aquamarine", 0x7fffd4),
    ("azure", 0xf0ffff),
    ("beige", 0xf5f5dc),
    ("bisque", 0xffe4c4),
    ("black", 0x000000),
    ("blanchedalmond", 0xffebcd),
    ("blue", 0x0000ff),
    ("blueviolet", 0x8a2be2),
    ("brown", 0xa52a2a),
    ("burlywood", 0xdeb887),
    ("cadetblue", 0x5f9ea0),
    ("chartreuse", 0x7fff00),
    ("chocolate", 0xd2691e),
    ("coral", 0xff7f50),
    ("cornflowerblue", 0x6495ed),
    ("cornsilk", 0xfff8dc),
    ("crimson", 0xdc143c),
    ("cyan", 0x00ffff),
    ("darkblue", 0x00008b),
    ("darkcyan", 0x008b8b),
    ("darkgoldenrod", 0xb8860b),
    ("darkgray", 0xa9a9a9),
    ("darkgreen", 0x006400),
    ("darkkhaki", 0xbdb76b),
    ("darkmagenta", 0x8b008b),
    ("darkolivegreen", 0x556b2f),
    ("darkorange", 0xff8c00),
    ("darkorchid", 0x9932cc),
    ("darkred", 0x8b0000),
    ("darksalmon", 0xe9967a),
    ("darkseagreen", 0x8fbc8f),
    ("darkslateblue", 0x483d8b),
    ("darkslategray", 0x2f4f4f),
    ("darkturquoise", 0x00ced1),
    ("darkviolet", 0x9400d3),
    ("deeppink", 0xff1493),
    ("deepskyblue", 0x00bfff),
    ("dimgray", 0x696969),
    ("dodgerblue", 0x1e90ff),
    ("firebrick", 0xb22222),
    ("floralwhite", 0xfffaf0),
    ("forestgreen", 0x228b22),
    ("fuchsia", 0xff00ff),
    ("gainsboro", 0xdcdcdc),
    ("ghostwhite", 0xf8f8ff),
    ("gold", 0xffd700),
    ("goldenrod", 0xdaa520),
    ("gray", 0x808080),
    ("green", 0x008000),
    ("greenyellow", 0xadff2f),
    ("honeydew", 0xf0fff0),
    ("hotpink", 0xff69b4),
    ("indianred", 0xcd5c5c),
    ("indigo", 0x4b0082),
    ("ivory", 0xfffff0),
    ("khaki", 0xf0e68c),
    ("lavender", 0xe6e6fa),
    ("lavenderblush", 0xfff0f5),
    ("lawngreen", 0x7cfc00),
    ("lemonchiffon", 0xfffacd),
    ("lightblue", 0xadd8e6),
    ("lightcoral", 0xf08080),
    ("lightcyan", 0xe0ffff),
    ("lightgoldenrodyellow", 0xfafad2),
    ("lightgray", 0xd3d3d3),
    ("lightgreen", 0x90ee90),
    ("lightpink", 0xffb6c1),
    ("lightsalmon", 0xffa07a),
    ("lightseagreen", 0x20b2aa),
    ("lightskyblue", 0x87cefa),
    ("lightslategray", 0x778899),
    ("lightsteelblue", 0xb0c4de),
    ("lightyellow", 0xffffe0),
    ("lime", 0x00ff00),
    ("limegreen", 0x32cd32),
    ("linen", 0xfaf0e6),
    ("magenta", 0xff00ff),
    ("maroon", 0x800000),
    ("mediumaquamarine", 0x66cdaa),
    ("mediumblue", 0x0000cd),
    ("mediumorchid", 0xba55d3),
    ("mediumpurple", 0x9370db),
    ("mediumseagreen", 0x3cb371),
    ("mediumslateblue", 0x7b68ee),
    ("mediumspringgreen", 0x00fa9a),
    ("mediumturquoise", 0x48d1cc),
    ("mediumvioletred", 0xc71585),
    ("midnightblue", 0x191970),
    ("mintcream", 0xf5fffa),
    ("mistyrose", 0xffe4e1),
    ("moccasin", 0xffe4b5),
    ("navajowhite", 0xffdead),
    ("navy", 0x000080),
    ("oldlace", 0xfdf5e6),
    ("olive", 0x808000),
    ("olivedrab", 0x6b8e23),
    ("orange", 0xffa500),
    ("orangered", 0xff4500),
    ("orchid", 0xda70d6),
    ("palegoldenrod", 0xeee8aa),
    ("palegreen", 0x98fb98),
    ("paleturquoise", 0xafeeee),
    ("palevioletred", 0xdb7093),
    ("papayawhip", 0xffefd5),
    ("peachpuff", 0xffdab9),
    ("peru", 0xcd853f),
    ("pink", 0xffc0cb),
    ("plum", 0xdda0dd),
    ("powderblue", 0xb0e0e6),
    ("purple", 0x800080),
    ("rebeccapurple", 0x663399),
    ("red", 0xff0000),
    ("rosybrown", 0xbc8f8f),
    ("royalblue", 0x4169e1),
    ("saddlebrown", 0x8b4513),
    ("salmon", 0xfa8072),
    ("sandybrown", 0xf4a460),
    ("seagreen", 0x2e8b57),
    ("seashell", 0xfff5ee),
    ("sienna", 0xa0522d),
    ("silver", 0xc0c0c0),
    ("skyblue", 0x87ceeb),
    ("slateblue", 0x6a5acd),
    ("slategray", 0x708090),
    ("snow", 0xfffafa),
    ("springgreen", 0x00ff7f),
    ("steelblue", 0x4682b4),
    ("tan", 0xd2b48c),
    ("teal", 0x008080),
    ("thistle", 0xd8bfd8),
    ("tomato", 0xff6347),
    ("turquoise", 0x40e0d0),
    ("violet", 0xee82ee),
    ("wheat", 0xf5deb3),
    ("white", 0xffffff),
    ("whitesmoke", 0xf5f5f5),
    ("yellow", 0xffff00),
    ("yellowgreen", 0x9acd32),
];

/// One colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Red, green and blue.
    pub rgb: [u8; 3],
}

impl Colour {
    /// The colour written as 0xRRGGBB.
    pub fn from_hex(hex: u32) -> Self {
        let [_, red, green, blue] = hex.to_be_bytes();
        Self { rgb: [red, green, blue] }
    }

    /// The colour of a CSS name.
    pub fn named(name: &str) -> Option<Self> {
        let (_, hex) = COLOURS.iter().find(|(candidate, _)| *candidate == name)?;
        Some(Self::from_hex(*hex))
    }

    /// Red, green and blue from -0.5 to 0.5. Zero in the middle makes the direction of the vector, which is
    /// all that cosine similarity sees, tell dark from light as well as red from green.
    pub fn vector(self) -> [f64; 3] {
        self.rgb.map(|part| f64::from(part) / 255.0 - 0.5)
    }

    /// How bright the colour looks, from 0 (black) to 1 (white): the weighted sum of ITU-R BT.601.
    pub fn brightness(self) -> f64 {
        let [red, green, blue] = self.rgb.map(f64::from);
        (0.299 * red + 0.587 * green + 0.114 * blue) / 255.0
    }

    /// The family a person would sort the colour into: from its hue (degrees on the colour circle), how
    /// strong it is (`chroma`, 0 to 1) and how light.
    pub fn family(self) -> &'static str {
        let [red, green, blue] = self.rgb.map(|part| f64::from(part) / 255.0);
        let (high, low) = (red.max(green).max(blue), red.min(green).min(blue));
        let (chroma, lightness) = (high - low, (high + low) / 2.0);
        if chroma < 0.1 {
            return match lightness {
                l if l < 0.15 => "black",
                l if l > 0.9 => "white",
                _ => "grey",
            };
        }
        let sixths = if high == red {
            ((green - blue) / chroma).rem_euclid(6.0)
        } else if high == green {
            (blue - red) / chroma + 2.0
        } else {
            (red - green) / chroma + 4.0
        };
        match sixths * 60.0 {
            hue if !(15.0..345.0).contains(&hue) && lightness > 0.7 => "pink",
            hue if !(15.0..345.0).contains(&hue) => "red",
            hue if hue < 42.0 && (lightness < 0.45 || chroma < 0.6) => "brown",
            hue if hue < 42.0 => "orange",
            hue if hue < 70.0 => "yellow",
            hue if hue < 165.0 => "green",
            hue if hue < 195.0 => "cyan",
            hue if hue < 255.0 => "blue",
            hue if hue < 310.0 => "purple",
            _ => "pink",
        }
    }

    /// The attributes stored with the colour, as JSON.
    pub fn attributes(self) -> String {
        format!(r#"{{"family":"{}","brightness":{:.2}}}"#, self.family(), self.brightness())
    }

    /// `#rrggbb`.
    pub fn hex(self) -> String {
        let [red, green, blue] = self.rgb;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_sample_is_sorted_and_within_24_bits() {
        assert_eq!(COLOURS.len(), 141);
        assert!(COLOURS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(COLOURS.iter().all(|(_, hex)| *hex <= 0xff_ff_ff));
        assert_eq!(Colour::named("tomato").unwrap().hex(), "#ff6347");
        assert_eq!(Colour::named("rebeccapurple").unwrap().hex(), "#663399");
        assert_eq!(Colour::named("nothing"), None);
    }

    #[test]
    fn families_are_what_the_names_say() {
        let expected = [
            ("tomato", "red"),
            ("crimson", "red"),
            ("maroon", "red"),
            ("darkorange", "orange"),
            ("saddlebrown", "brown"),
            ("brown", "red"),
            ("tan", "brown"),
            ("gold", "yellow"),
            ("olive", "yellow"),
            ("seagreen", "green"),
            ("lime", "green"),
            ("teal", "cyan"),
            ("cyan", "cyan"),
            ("navy", "blue"),
            ("skyblue", "blue"),
            ("indigo", "purple"),
            ("orchid", "purple"),
            ("hotpink", "pink"),
            ("lightpink", "pink"),
            ("black", "black"),
            ("white", "white"),
            ("slategray", "blue"),
            ("gray", "grey"),
            ("silver", "grey"),
        ];
        for (name, family) in expected {
            assert_eq!(Colour::named(name).unwrap().family(), family, "{name}");
        }
        let mut families = BTreeMap::new();
        for (_, hex) in COLOURS {
            *families.entry(Colour::from_hex(*hex).family()).or_insert(0) += 1;
        }
        assert_eq!(families.len(), 12, "{families:?}");
    }

    #[test]
    fn vectors_are_centred_and_attributes_are_json() {
        assert_eq!(Colour::from_hex(0).vector(), [-0.5; 3]);
        assert_eq!(Colour::from_hex(0xff_ff_ff).vector(), [0.5; 3]);
        assert_eq!(Colour::named("tomato").unwrap().attributes(), r#"{"family":"red","brightness":0.56}"#);
        assert_eq!(Colour::named("white").unwrap().brightness(), 1.0);
    }
}
