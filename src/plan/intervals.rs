//! Pure: ordinals of nodes as intervals.

use std::collections::BTreeSet;

/// The most intervals that are shown.
const SHOWN: usize = 32;

/// Ordinals as intervals: `0-2,5`.
pub fn text(ordinals: &BTreeSet<u32>) -> String {
    spans(ordinals).iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The same for people, cut where it grows long: `0,2,4 and 12 more`.
pub fn shortened(ordinals: &BTreeSet<u32>) -> String {
    let spans = spans(ordinals);
    let shown: Vec<String> = spans.iter().take(SHOWN).map(ToString::to_string).collect();
    let left: usize = spans.iter().skip(SHOWN).map(Span::len).sum();
    if left == 0 { shown.join(",") } else { format!("{} and {left} more", shown.join(",")) }
}

/// The ordinals of intervals. What cannot be read stands for none.
pub fn parse(text: &str) -> BTreeSet<u32> {
    let span = |span: &str| {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    };
    text.split(',').filter_map(span).flatten().collect()
}

struct Span(u32, u32);

impl Span {
    fn len(&self) -> usize {
        (self.1 - self.0) as usize + 1
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

fn spans(ordinals: &BTreeSet<u32>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for ordinal in ordinals {
        match spans.last_mut() {
            Some(span) if span.1 + 1 == *ordinal => span.1 = *ordinal,
            _ => spans.push(Span(*ordinal, *ordinal)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_become_intervals_and_back() {
        for (ordinals, text) in [(vec![], ""), (vec![3], "3"), (vec![0, 1, 2, 5, 7, 8], "0-2,5,7-8")] {
            let ordinals: BTreeSet<u32> = ordinals.into_iter().collect();
            assert_eq!(super::text(&ordinals), text);
            assert_eq!(parse(text), ordinals);
        }
        let many: BTreeSet<u32> = (0..200).step_by(2).collect();
        assert!(shortened(&many).ends_with("60,62 and 68 more"), "{}", shortened(&many));
        assert_eq!(parse(&super::text(&many)), many);
    }
}
