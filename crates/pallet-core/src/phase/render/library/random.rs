//! What looks random and is the same each time: numbers from a seed, as Python's `random.Random(seed)` makes them.

use minijinja::{Error, Value, value::ValueKind};
use sha2::{Digest as _, Sha512};

use super::{Call, Entry, Made, entry, python, refusal};

/// What seeding costs.
const SEEDING: u64 = 16 << 10;

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["random"], "end, start=, step=, seed=", random),
        entry(&["shuffle"], "mylist, seed=", |call| {
            let mut items = call.items(0)?;
            let mut source = source(call, 1)?;
            call.pay_items(items.len())?;
            for place in (1..items.len()).rev() {
                let other = source.below(place as u64 + 1);
                items.swap(place, usize::try_from(other).unwrap_or(place));
            }
            Ok(items.into())
        }),
    ]
}

fn source(call: &mut Call, place: usize) -> Result<Twister, Error> {
    call.pay(SEEDING)?;
    let Some(seed) = call.given(place).filter(|seed| !seed.is_none()) else {
        return Err(refusal(
            "say the seed, as in random(seed=node.name): without one the phase would run again for ever",
        ));
    };
    match (seed.as_str(), python::whole(seed)) {
        (Some(text), _) => {
            let mut bytes = text.as_bytes().to_vec();
            bytes.extend(Sha512::digest(text.as_bytes()));
            call.pay_times(4)?;
            // The number that the bytes are, its lowest part first.
            let mut words: Vec<u32> =
                bytes.rchunks(4).map(|chunk| chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))).collect();
            while words.len() > 1 && words.last() == Some(&0) {
                words.pop();
            }
            Ok(Twister::of(&words))
        }
        (None, Some(number)) => {
            let mut number = number.unsigned_abs();
            let mut words = Vec::new();
            while number > 0 || words.is_empty() {
                words.push((number & u128::from(u32::MAX)) as u32);
                number >>= 32;
            }
            Ok(Twister::of(&words))
        }
        _ => Err(refusal("the seed is to be text or a whole number")),
    }
}

fn random(call: &mut Call) -> Made {
    let end = call.value(0);
    let given = |call: &Call, place: usize| call.given(place).is_some_and(Value::is_true);
    let mut source = source(call, 3)?;
    if end.is_integer() {
        let end = call.integer_or(0, 0)?;
        let start = if given(call, 1) { call.integer_or(1, 0)? } else { 0 };
        let step = if given(call, 2) { call.integer_or(2, 1)? } else { 1 };
        let (first, last, by) = (i128::from(start), i128::from(end), i128::from(step));
        let count =
            if by > 0 { (last - first + by - 1).div_euclid(by) } else { (first - last - by - 1).div_euclid(-by) };
        let count = u64::try_from(count).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| refusal("filter random: there is no number from start to end"))?;
        return Ok(python::integer(first + by * i128::from(source.below(count))));
    }
    if !matches!(end.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::String) {
        return Err(call.refuse(0, "a list or a whole number", &end));
    }
    if given(call, 1) || given(call, 2) {
        return Err(refusal("filter random: start and step are for numbers only"));
    }
    let items = call.items(0)?;
    if items.is_empty() {
        return Err(refusal("filter random: the list is empty"));
    }
    let place = usize::try_from(source.below(items.len() as u64)).unwrap_or(0);
    Ok(items.get(place).cloned().unwrap_or_default())
}

const SIZE: usize = 624;

/// The Mersenne Twister (MT19937), seeded by `init_by_array`.
struct Twister {
    state: Vec<u32>,
    next: usize,
}

impl Twister {
    fn of(seed: &[u32]) -> Self {
        let mut state = vec![19_650_218_u32; SIZE];
        for place in 1..SIZE {
            let before = state[place - 1];
            state[place] = 1_812_433_253_u32.wrapping_mul(before ^ before >> 30).wrapping_add(place as u32);
        }
        let (mut place, mut word) = (1, 0);
        let mix = |state: &[u32], place: usize, factor: u32| {
            let before = state[place - 1];
            state[place] ^ (before ^ before >> 30).wrapping_mul(factor)
        };
        for _ in 0..SIZE.max(seed.len()) {
            state[place] = mix(&state, place, 1_664_525).wrapping_add(seed[word]).wrapping_add(word as u32);
            (place, word) = (place + 1, (word + 1) % seed.len());
            if place >= SIZE {
                state[0] = state[SIZE - 1];
                place = 1;
            }
        }
        for _ in 1..SIZE {
            state[place] = mix(&state, place, 1_566_083_941).wrapping_sub(place as u32);
            place += 1;
            if place >= SIZE {
                state[0] = state[SIZE - 1];
                place = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, next: SIZE }
    }

    fn word(&mut self) -> u32 {
        if self.next >= SIZE {
            for place in 0..SIZE {
                let bits = self.state[place] & 0x8000_0000 | self.state[(place + 1) % SIZE] & 0x7fff_ffff;
                let odd = if bits & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[place] = self.state[(place + 397) % SIZE] ^ bits >> 1 ^ odd;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    /// `getrandbits`, of at most 64.
    fn bits(&mut self, count: u32) -> u64 {
        if count <= 32 {
            return u64::from(self.word() >> (32 - count.max(1)));
        }
        let low = u64::from(self.word());
        low | u64::from(self.word() >> (64 - count)) << 32
    }

    /// A number from 0 to below `limit`, which is 1 or more.
    fn below(&mut self, limit: u64) -> u64 {
        let count = u64::BITS - limit.leading_zeros();
        loop {
            let number = self.bits(count);
            if number < limit {
                return number;
            }
        }
    }
}
