//! Pure: ordinals of nodes as intervals.

use std::collections::BTreeSet;

/// The most intervals that are shown.
const SHOWN: usize = 32;
/// The most intervals that cover a set.
const COVERING: usize = 256;

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

/// At least these ordinals, as 256 intervals at most: of more, those with the fewest ordinals between them are joined.
pub fn covering(ordinals: &BTreeSet<u32>) -> String {
    let spans = spans(ordinals);
    let mut gaps: Vec<usize> = (1..spans.len()).collect();
    gaps.sort_by_key(|at| std::cmp::Reverse(spans[*at].0 - spans[at - 1].1));
    let kept: BTreeSet<usize> = gaps.into_iter().take(COVERING - 1).collect();
    let mut joined: Vec<Span> = Vec::new();
    for (at, span) in spans.into_iter().enumerate() {
        match joined.last_mut() {
            Some(last) if !kept.contains(&at) => last.1 = span.1,
            _ => joined.push(span),
        }
    }
    joined.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The ordinals of intervals. What cannot be read stands for none.
pub fn parse(text: &str) -> BTreeSet<u32> {
    read(text).flat_map(|Span(first, last)| first..=last).collect()
}

fn read(text: &str) -> impl Iterator<Item = Span> {
    text.split(',').filter_map(|span| {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        Some(Span(first.parse().ok()?, last.parse().ok()?))
    })
}

/// Intervals that were read from a text, to look ordinals up in. They take no more memory than the text: in order, and apart.
#[derive(Clone, Debug, Default)]
pub struct Intervals(Vec<Span>);

impl Intervals {
    /// The intervals of a text. What cannot be read stands for none.
    pub fn of(text: &str) -> Self {
        let mut read: Vec<Span> = read(text).filter(|Span(first, last)| first <= last).collect();
        read.sort_unstable_by_key(|span| span.0);
        let mut apart: Vec<Span> = Vec::with_capacity(read.len());
        for span in read {
            match apart.last_mut() {
                Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
                _ => apart.push(span),
            }
        }
        Self(apart)
    }

    /// Whether one of them has this ordinal.
    pub fn contain(&self, ordinal: u32) -> bool {
        let at = self.0.partition_point(|span| span.1 < ordinal);
        self.0.get(at).is_some_and(|span| span.0 <= ordinal)
    }
}

#[derive(Clone, Debug)]
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

    #[test]
    fn a_covering_is_short_and_leaves_nothing_out() {
        let few: BTreeSet<u32> = (0..512).step_by(2).collect();
        assert_eq!(covering(&few), super::text(&few), "256 intervals are exact");
        assert_eq!(covering(&BTreeSet::new()), "");
        // 5,000 single ordinals, and one far away from them.
        let many: BTreeSet<u32> = (0..10_000).step_by(2).chain([4_000_000_000]).collect();
        let (text, intervals) = (covering(&many), Intervals::of(&covering(&many)));
        assert_eq!(text.split(',').count(), 256);
        assert!(many.iter().all(|ordinal| intervals.contain(*ordinal)));
        assert!(!intervals.contain(20_000), "the widest gap stays: {text}");
        assert!("4294967294-4294967295,".len() * 256 <= 8192, "as the schema says");
        // The widest gaps are kept, wherever they are.
        let pairs: BTreeSet<u32> = (0..256).flat_map(|pair| [pair * 10, pair * 10 + 2 + pair % 2]).collect();
        let widest = Intervals::of(&covering(&pairs));
        assert!(!widest.contain(5) && widest.contain(1) && pairs.iter().all(|ordinal| widest.contain(*ordinal)));
    }

    #[test]
    fn intervals_of_others_cost_what_their_text_costs() {
        let hostile = Intervals::of("0-4294967295,7,,x,9-3");
        assert!(hostile.contain(4_294_967_295) && hostile.contain(0));
        let mixed = Intervals::of("40-50,3,10-30,12,20-35");
        let within = |ordinal: &u32| mixed.contain(*ordinal);
        assert_eq!((0..60).filter(within).count(), 1 + 26 + 11);
        let none = Intervals::of("9-3,-,1-");
        assert!((0..10).all(|ordinal| !none.contain(ordinal)));
    }
}
