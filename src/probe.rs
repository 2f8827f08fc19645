//! IO: asks an address once whether it answers with 200. It is what `helm test` runs: the image has no shell.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(3);
/// Longer than a status line is.
const ANSWER: u64 = 1024;

/// Why a probe did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not of the form http://HOST:PORT/PATH.
    #[error("{0} is no address to probe; write one such as http://10.96.0.7:8080/readyz")]
    Address(String),
    /// Nobody there, or nobody who answers.
    #[error("{address} does not answer")]
    Silent {
        /// Who was asked.
        address: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Any answer but 200.
    #[error("{address} answers: {answer}")]
    Refused {
        /// Who was asked.
        address: String,
        /// The first line of the answer.
        answer: String,
    },
}

/// Tries until the address answers with 200, or `patience` has passed. Blocks.
///
/// # Errors
/// What the last try met.
pub fn probe(address: &str, patience: Duration) -> Result<(), Error> {
    let (host, path) = parse(address).ok_or_else(|| Error::Address(address.to_owned()))?;
    let began = Instant::now();
    loop {
        let error = match status_line(host, path) {
            Ok(answer) if answer.split(' ').nth(1) == Some("200") => return Ok(()),
            Ok(answer) => Error::Refused { address: address.to_owned(), answer },
            Err(source) => Error::Silent { address: address.to_owned(), source },
        };
        if began.elapsed() > patience {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// `HOST:PORT` and the path.
fn parse(address: &str) -> Option<(&str, &str)> {
    let rest = address.strip_prefix("http://")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    let port = host.rsplit_once(':')?.1;
    port.parse::<u16>().ok()?;
    // It goes into a request as it is.
    let plain = rest.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then_some((host, if path.is_empty() { "/" } else { path }))
}

fn status_line(host: &str, path: &str) -> io::Result<String> {
    let address = host.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, TRY)?;
    stream.set_read_timeout(Some(TRY))?;
    stream.set_write_timeout(Some(TRY))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answers(lines: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/readyz", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for line in lines {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                assert!(request.starts_with(b"GET /readyz HTTP/1.1\r\n"));
                write!(stream, "{line}\r\n\r\nbody").unwrap();
            }
        });
        address
    }

    #[test]
    fn only_200_is_success() {
        probe(&answers(&["HTTP/1.1 200 OK"]), Duration::ZERO).unwrap();
        let error = probe(&answers(&["HTTP/1.1 503 Service Unavailable"]), Duration::ZERO).unwrap_err();
        assert!(
            matches!(&error, Error::Refused { answer, .. } if answer == "HTTP/1.1 503 Service Unavailable"),
            "{error:?}"
        );
    }

    #[test]
    fn it_tries_again_while_there_is_patience() {
        probe(&answers(&["HTTP/1.1 503 no", "HTTP/1.1 200 OK"]), Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn nobody_there_is_an_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = probe(&format!("http://{free}/"), Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error:?}");
    }

    #[test]
    fn what_is_no_address_is_said_at_once() {
        for address in ["https://a:1/", "http://host/readyz", "http://:x/", "http://h:1/a b", "http://h:1/\r\n"] {
            let error = probe(address, Duration::from_secs(60)).unwrap_err();
            assert!(matches!(error, Error::Address(_)), "{address}: {error:?}");
        }
        assert_eq!(parse("http://[::1]:8080"), Some(("[::1]:8080", "/")));
    }
}
