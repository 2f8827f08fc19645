//! A collector of traces: what it was sent over OTLP (protobuf), read as far as the tests ask.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};

/// One span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    pub id: Vec<u8>,
    pub parent: Vec<u8>,
    pub name: String,
    /// Strings and integers, as text.
    pub attributes: BTreeMap<String, String>,
}

type Received = Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>;

/// Listens on loopback.
pub struct Collector {
    pub address: SocketAddr,
    received: Received,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, received) = (listener.local_addr().unwrap(), Received::default());
        let take = |State(received): State<Received>, headers: HeaderMap, body: Bytes| async move {
            received.lock().unwrap().push((headers, body.to_vec()));
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(received.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, received }
    }

    /// A header of each request, where it was sent.
    pub fn header(&self, name: &str) -> Vec<Option<String>> {
        let received = self.received.lock().unwrap();
        received.iter().map(|(headers, _)| Some(headers.get(name)?.to_str().ok()?.to_owned())).collect()
    }

    /// The attributes of what sent them.
    pub fn resource(&self) -> BTreeMap<String, String> {
        let received = self.received.lock().unwrap();
        let resources = received.iter().flat_map(|(_, body)| within(within([body.as_slice()], 1), 1));
        attributes(within(resources.collect::<Vec<_>>(), 1))
    }

    pub fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().unwrap();
        // Resource spans, scope spans, spans.
        let spans = received.iter().flat_map(|(_, body)| within(within(within([body.as_slice()], 1), 2), 2));
        let first = |span, number| within([span], number).first().copied().unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        spans
            .map(|span| Span {
                id: first(span, 2).to_vec(),
                parent: first(span, 4).to_vec(),
                name: text(first(span, 5)),
                attributes: attributes(within([span], 9)),
            })
            .collect()
    }
}

/// Keys and values, where the values are strings or integers.
fn attributes<'a>(pairs: impl IntoIterator<Item = &'a [u8]>) -> BTreeMap<String, String> {
    let value = |pair| {
        let value = *within([pair], 2).first()?;
        fields(value).into_iter().find_map(|(number, content)| match (number, content) {
            (1, Content::Bytes(bytes)) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            (3, Content::Number(number)) => Some(number.to_string()),
            _ => None,
        })
    };
    let key = |pair| Some(String::from_utf8(within([pair], 1).first()?.to_vec()).unwrap());
    pairs.into_iter().filter_map(|pair| Some((key(pair)?, value(pair)?))).collect()
}

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The messages and strings that stand under a number in each of these messages.
fn within<'a>(messages: impl IntoIterator<Item = &'a [u8]>, wanted: u64) -> Vec<&'a [u8]> {
    let all = messages.into_iter().flat_map(fields);
    all.filter_map(|(number, content)| match content {
        Content::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
    .collect()
}

/// The fields of a protobuf message.
fn fields(mut message: &[u8]) -> Vec<(u64, Content<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let content = match tag & 7 {
            0 => Content::Number(varint(&mut message)),
            1 => Content::Bytes(take(&mut message, 8)),
            2 => {
                let length = usize::try_from(varint(&mut message)).unwrap();
                Content::Bytes(take(&mut message, length))
            }
            5 => Content::Bytes(take(&mut message, 4)),
            other => panic!("no protobuf: wire type {other}"),
        };
        fields.push((tag >> 3, content));
    }
    fields
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = message.split_at(length);
    *message = rest;
    taken
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(message, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}
