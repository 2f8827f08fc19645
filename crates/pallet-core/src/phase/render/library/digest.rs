//! Hashes, base64 and identifiers.

use std::sync::LazyLock;

use data_encoding::{BASE64, BASE64URL, Encoding};
use minijinja::{Error, Value};
use sha1::Sha1;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

use super::{Call, Entry, Made, entry, refusal};

/// As Python reads base64: bits behind the last byte do not matter.
static LENIENT: LazyLock<Encoding> = LazyLock::new(|| lenient(&BASE64));
static LENIENT_URL: LazyLock<Encoding> = LazyLock::new(|| lenient(&BASE64URL));

fn lenient(encoding: &Encoding) -> Encoding {
    let mut specification = encoding.specification();
    specification.check_trailing_bits = false;
    specification.encoding().unwrap_or_else(|_| encoding.clone())
}

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["hash"], "data, hashtype=", |call| {
            let kind = call.string_or(1, "sha1")?;
            hash(call, &kind)
        }),
        entry(&["sha1", "checksum"], "data", |call| hash(call, "sha1")),
        entry(&["md5"], "data", |call| hash(call, "md5")),
        entry(&["b64encode"], "string, encoding=, urlsafe=", |call| {
            encoding(call)?;
            let text = call.string(0)?;
            call.pay_times(2)?;
            let encoding = if call.flag(2, false) { BASE64URL } else { BASE64 };
            Ok(Value::from(encoding.encode(text.as_bytes())))
        }),
        entry(&["b64decode"], "string, encoding=, urlsafe=", |call| {
            encoding(call)?;
            let text = call.string(0)?;
            call.pay_times(2)?;
            let is_urlsafe = call.flag(2, false);
            // Python passes over what is no part of the alphabet, such as line breaks.
            let kept: String = text
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || (if is_urlsafe { "-_=" } else { "+/=" }).contains(*c))
                .collect();
            let encoding = if is_urlsafe { &LENIENT_URL } else { &LENIENT };
            // Of texts that were joined, each with its padding, Python takes the first only.
            let is_one = !kept.trim_end_matches('=').contains('=');
            let bytes = Some(encoding.decode(kept.as_bytes())).filter(|_| is_one).and_then(Result::ok);
            let bytes = bytes.ok_or_else(|| {
                refusal("filter b64decode: the text is no base64; its padding is missing, or more follows")
            })?;
            String::from_utf8(bytes)
                .map(Value::from)
                .map_err(|_| refusal("filter b64decode: it comes to bytes that are no text; decode them in the script"))
        }),
        entry(&["to_uuid"], "string, namespace=", |call| {
            let text = call.string(0)?;
            let namespace = call.string_or(1, "361E6D51-FAEC-444A-9079-341386DA8E2E")?;
            let digits = namespace.replace('-', "");
            let bytes = (0..16)
                .map(|place| digits.get(place * 2..place * 2 + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()));
            let bytes: Option<Vec<u8>> = bytes.collect();
            let bytes = bytes
                .filter(|_| digits.len() == 32)
                .ok_or_else(|| refusal("filter to_uuid: namespace is to be a UUID"))?;
            call.pay_times(2)?;
            let mut hash = Sha1::new();
            hash.update(&bytes);
            hash.update(text.as_bytes());
            let mut id: Vec<u8> = hash.finalize()[..16].to_vec();
            id[6] = id[6] & 0x0f | 0x50;
            id[8] = id[8] & 0x3f | 0x80;
            let hex = hex(&id);
            Ok(Value::from(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])))
        }),
    ]
}

fn encoding(call: &Call) -> Result<(), Error> {
    match call.string_or(1, "utf-8")?.to_lowercase().as_str() {
        "utf-8" | "utf8" => Ok(()),
        other => Err(refusal(format!("the encoding {other} is not to be had; utf-8 is"))),
    }
}

pub(super) use crate::phase::hex;

fn hash(call: &mut Call, kind: &str) -> Made {
    let text = call.text(0)?;
    call.pay_times(2)?;
    Ok(Value::from(match kind {
        "md5" => hex(&md5::compute(&text).0),
        "sha1" => hex(&Sha1::digest(&text)),
        "sha224" => hex(&Sha224::digest(&text)),
        "sha256" => hex(&Sha256::digest(&text)),
        "sha384" => hex(&Sha384::digest(&text)),
        "sha512" => hex(&Sha512::digest(&text)),
        other => {
            return Err(refusal(format!(
                "filter hash: there is no {other}; md5, sha1, sha224, sha256, sha384 and sha512 are"
            )));
        }
    }))
}
