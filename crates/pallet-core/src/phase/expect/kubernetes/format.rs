//! Pure: the formats that Kubernetes knows by name, such as that of a DNS label.

use cel::{
    DeclarationError, Env, add_overload,
    common::{
        types::{CelList, CelOptional, CelString, STRING_TYPE},
        value::{CowVal, Val},
    },
};

use super::{Answer, Url, argument, optional, refuse, text};

/// A format by its name, one of [`NAMES`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Format(&'static str);

/// All formats, each with what it allows.
const NAMES: [(&str, &str); 13] = [
    ("dns1123Label", "at most 63 lower case letters, digits and '-', with a letter or digit at both ends"),
    ("dns1123Subdomain", "DNS labels joined by '.', at most 253 characters"),
    ("dns1035Label", "at most 63 lower case letters, digits and '-', with a letter first and a letter or digit last"),
    (
        "qualifiedName",
        "an optional DNS subdomain and '/', then at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
    ),
    ("dns1123LabelPrefix", "the beginning of a DNS label"),
    ("dns1123SubdomainPrefix", "the beginning of a DNS subdomain"),
    ("dns1035LabelPrefix", "the beginning of a DNS label that has a letter first"),
    ("labelValue", "nothing, or at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends"),
    ("uri", "a URI"),
    ("uuid", "a UUID such as 123e4567-e89b-12d3-a456-426614174000"),
    ("byte", "base64"),
    ("date", "a date such as 2006-01-02"),
    ("datetime", "a date and time such as 2006-01-02T15:04:05Z"),
];

impl Format {
    fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(known, _)| Self(known))
    }

    fn accepts(self, value: &str) -> bool {
        match self.0 {
            "dns1123Label" => is_label(value, 63),
            "dns1035Label" => is_letter_first(value) && is_label(value, 63),
            "dns1123Subdomain" => is_subdomain(value),
            // The end of a prefix may be a dash.
            "dns1123LabelPrefix" => value.is_empty() || is_label(beginning(value), 63),
            "dns1035LabelPrefix" => value.is_empty() || is_letter_first(value) && is_label(beginning(value), 63),
            "dns1123SubdomainPrefix" => value.is_empty() || is_subdomain(beginning(value)),
            "labelValue" => value.is_empty() || is_name(value),
            "qualifiedName" => match value.split_once('/') {
                Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
                None => is_name(value),
            },
            "uri" => Url::parse(value).is_ok(),
            "uuid" => is_uuid(value),
            "byte" => is_base64(value),
            "date" => jiff::fmt::strtime::parse("%Y-%m-%d", value).is_ok_and(|date| date.to_date().is_ok()),
            "datetime" => value.contains(['T', 't']) && value.parse::<jiff::Timestamp>().is_ok(),
            _ => false,
        }
    }
}

fn beginning(value: &str) -> &str {
    value.strip_suffix('-').unwrap_or(value)
}

fn is_letter_first(value: &str) -> bool {
    value.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_label(value: &str, most: usize) -> bool {
    let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = value.as_bytes();
    bytes.len() <= most
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|c| plain(c) || *c == b'-')
}

/// Kubernetes bounds the whole, not its parts.
fn is_subdomain(value: &str) -> bool {
    value.len() <= 253 && value.split('.').all(|part| is_label(part, 253))
}

fn is_name(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

fn is_uuid(value: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let plain: Vec<&str> = value.split('-').collect();
    let hex = |part: &str| part.bytes().all(|c| c.is_ascii_hexdigit());
    match plain.as_slice() {
        [one] => one.len() == 32 && hex(one),
        parts => parts.len() == 5 && parts.iter().zip(lengths).all(|(part, length)| part.len() == length && hex(part)),
    }
}

fn is_base64(value: &str) -> bool {
    data_encoding::BASE64.decode(value.as_bytes()).is_ok()
}

fn validate<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let format = argument(&args, 0)?.downcast_ref::<Format>();
    let value = argument(&args, 1)?.downcast_ref::<CelString>();
    let (Some(format), Some(value)) = (format, value) else { return Err(refuse("validate", "it takes a text")) };
    if format.accepts(value.inner()) {
        return Ok(optional(None));
    }
    let allowed = NAMES.iter().find(|(name, _)| *name == format.0).map_or("", |(_, allowed)| allowed);
    let message: Box<dyn Val + 'v> = Box::new(text(format!("it must be {allowed}")));
    Ok(optional(Some(Box::new(CelList::from(vec![message])))))
}

pub(super) fn extend(env: &mut Env) -> Result<(), DeclarationError> {
    fn named(name: &CelString<'_>) -> CelOptional<'static> {
        CelOptional::from(Format::named(name.inner()).map(|format| Box::new(format) as Box<dyn Val>))
    }
    add_overload!(env, fn named: (CelString) -> CelOptional, name = "format.named")?;
    macro_rules! declare {
        ($($name:literal)+) => {
            $(env.add_overload(concat!("format.", $name), $name, vec![], |_| Ok(CowVal::owned(Format($name))))?;)+
        };
    }
    declare!("dns1123Label" "dns1123Subdomain" "dns1035Label" "qualifiedName" "dns1123LabelPrefix" "dns1123SubdomainPrefix"
        "dns1035LabelPrefix" "labelValue" "uri" "uuid" "byte" "date" "datetime");
    let receiver = <Format as Val>::cel_type().to_owned();
    env.add_member_overload("validate", "format_validate", receiver, vec![STRING_TYPE], validate)
}
