//! Hashes of passwords, as /etc/shadow has them: SHA-crypt of Ulrich Drepper.

use minijinja::Value;
use sha2::{Digest, Sha256, Sha512};

use super::{Call, Entry, Made, entry, refusal};

/// The rounds that are not written down.
const ROUNDS: i64 = 5000;
/// About what a round costs for each byte that it hashes.
const ROUND: u64 = 2;

pub(super) fn filters() -> Vec<Entry> {
    vec![entry(&["password_hash"], "password, hashtype=, salt=, salt_size=, rounds=, ident=", password_hash)]
}

fn password_hash(call: &mut Call) -> Made {
    let password = call.string(0)?;
    let kind = call.string_or(1, "sha512")?;
    let is_long = match kind.as_str() {
        "sha512" | "sha512_crypt" => true,
        "sha256" | "sha256_crypt" => false,
        other => return Err(refusal(format!("filter password_hash: {other} is not to be had; sha512 and sha256 are"))),
    };
    let Some(salt) = call.given(2).filter(|salt| !salt.is_none()) else {
        return Err(refusal(
            "filter password_hash: say the salt; a new one each time would run the phase for ever. One for each node: \
             password_hash('sha512', (node.name | hash('sha256'))[:16], rounds=5000)",
        ));
    };
    let salt = match salt.as_str() {
        Some(salt) => salt.to_owned(),
        None => super::python::text(salt)?,
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "./".contains(c);
    if salt.is_empty() || salt.len() > 16 || !salt.chars().all(fits) {
        return Err(refusal("filter password_hash: salt is to be 1 to 16 letters, digits, . and /"));
    }
    if call.given(4).is_none_or(Value::is_none) {
        return Err(refusal(
            "filter password_hash: say the rounds, as in password_hash('sha512', salt, rounds=5000), the standard's number; what \
             Ansible takes depends on its libraries",
        ));
    }
    let rounds = call.integer_or(4, ROUNDS)?;
    if !(1000..=999_999_999).contains(&rounds) {
        return Err(refusal("filter password_hash: rounds is to be 1000 or more"));
    }
    if password.len() > 4096 {
        return Err(refusal("filter password_hash: the password is longer than 4 KiB"));
    }
    let each = (password.len() * 2 + salt.len() + 192) as u64 * ROUND;
    call.pay((rounds as u64).saturating_mul(each))?;
    call.pay((password.len() as u64).saturating_mul(password.len() as u64))?;
    let front = match rounds {
        ROUNDS => String::new(),
        rounds => format!("rounds={rounds}$"),
    };
    Ok(Value::from(if is_long {
        let sum = crypt::<Sha512>(password.as_bytes(), salt.as_bytes(), rounds, 64);
        format!("$6${front}{salt}${}", encoded(&sum, &LONG))
    } else {
        let sum = crypt::<Sha256>(password.as_bytes(), salt.as_bytes(), rounds, 32);
        format!("$5${front}{salt}${}", encoded(&sum, &SHORT))
    }))
}

fn hashed<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = D::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().to_vec()
}

/// The steps are those of "Unix crypt using SHA-256 and SHA-512", by their numbers there.
fn crypt<D: Digest>(password: &[u8], salt: &[u8], rounds: i64, size: usize) -> Vec<u8> {
    let spread = |block: &[u8], length: usize| -> Vec<u8> { block.iter().copied().cycle().take(length).collect() };
    // 4 to 8
    let other = hashed::<D>(&[password, salt, password]);
    // 1 to 3, 9 to 12
    let mut hash = D::new();
    hash.update(password);
    hash.update(salt);
    hash.update(spread(&other, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        if bits & 1 == 1 {
            hash.update(&other)
        } else {
            hash.update(password)
        }
        bits >>= 1;
    }
    let mut sum = hash.finalize().to_vec();
    // 13 to 16
    let mut hash = D::new();
    password.iter().for_each(|_| hash.update(password));
    let of_password = spread(&hash.finalize(), password.len());
    // 17 to 20
    let mut hash = D::new();
    (0..16 + usize::from(sum.first().copied().unwrap_or(0))).for_each(|_| hash.update(salt));
    let of_salt = spread(&hash.finalize(), salt.len());
    // 21
    for round in 0..rounds {
        let mut hash = D::new();
        if round % 2 == 1 {
            hash.update(&of_password)
        } else {
            hash.update(&sum)
        }
        if round % 3 != 0 {
            hash.update(&of_salt);
        }
        if round % 7 != 0 {
            hash.update(&of_password);
        }
        if round % 2 == 1 {
            hash.update(&sum)
        } else {
            hash.update(&of_password)
        }
        sum = hash.finalize().to_vec();
    }
    debug_assert_eq!(sum.len(), size);
    sum
}

/// The bytes in the order in which they are written, three at a time; what is 255 is left out.
const LONG: [[u8; 3]; 22] = [
    [0, 21, 42],
    [22, 43, 1],
    [44, 2, 23],
    [3, 24, 45],
    [25, 46, 4],
    [47, 5, 26],
    [6, 27, 48],
    [28, 49, 7],
    [50, 8, 29],
    [9, 30, 51],
    [31, 52, 10],
    [53, 11, 32],
    [12, 33, 54],
    [34, 55, 13],
    [56, 14, 35],
    [15, 36, 57],
    [37, 58, 16],
    [59, 17, 38],
    [18, 39, 60],
    [40, 61, 19],
    [62, 20, 41],
    [255, 255, 63],
];
const SHORT: [[u8; 3]; 11] = [
    [0, 10, 20],
    [21, 1, 11],
    [12, 22, 2],
    [3, 13, 23],
    [24, 4, 14],
    [15, 25, 5],
    [6, 16, 26],
    [27, 7, 17],
    [18, 28, 8],
    [9, 19, 29],
    [255, 31, 30],
];

fn encoded(sum: &[u8], order: &[[u8; 3]]) -> String {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let byte = |place: u8| u32::from(sum.get(usize::from(place)).copied().unwrap_or(0));
    let mut out = String::new();
    for places in order {
        let mut bits = byte(places[0]) << 16 | byte(places[1]) << 8 | byte(places[2]);
        let count = 4 - places.iter().filter(|place| **place == 255).count();
        for _ in 0..count {
            out.push(ALPHABET.get((bits & 63) as usize).copied().unwrap_or(b'.').into());
            bits >>= 6;
        }
    }
    out
}
