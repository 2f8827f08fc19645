//! A stream that can be cut from outside, at any moment and whatever waits on it.
//!
//! The task of a connection ends by itself only when it gets to look for that: not while it waits for a write that a dead
//! network does not take, nor in a handshake that the other side does not go on with. Cutting its stream ends it in each
//! case. The line also knows for how long nothing came in while somebody was waiting for it, which keepalives alone cannot
//! tell: none is sent while a write is stuck.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// A stream, led by what was read of it before.
pub struct Line<S> {
    stream: S,
    heard: Vec<u8>,
    state: Arc<State>,
}

/// Cuts a line when it is dropped.
pub struct Scissors(Arc<State>);

#[derive(Default)]
struct State(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Since when somebody has been waiting for bytes in vain.
    waiting: Option<Instant>,
    /// How it ended, for people.
    end: Option<String>,
    cut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is an assignment: a panic leaves nothing half done.
        self.0.lock()
    }

    fn cut(&self, why: &str) {
        let mut inner = self.inner();
        inner.cut = true;
        inner.end.get_or_insert_with(|| why.to_owned());
        let wakers = [inner.reader.take(), inner.writer.take()];
        drop(inner);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl<S> Line<S> {
    /// `heard` is what was read already.
    pub fn new(stream: S, heard: Vec<u8>) -> (Self, Scissors) {
        let state = Arc::<State>::default();
        (Self { stream, heard, state: state.clone() }, Scissors(state))
    }
}

impl Scissors {
    /// How the line ended, if it has.
    pub fn end(&self) -> Option<String> {
        self.0.inner().end.clone()
    }

    /// Cuts it: whoever waits for bytes, in either direction, gets an error at once.
    pub fn cut(&self) {
        self.0.cut("the connection was closed on this side");
    }

    /// Waits until nothing has come in for `limit` although it was waited for, then cuts the line. It does not keep the line
    /// from being dropped, and never resolves where the line ends otherwise.
    pub fn when_silent(&self, limit: Duration) -> impl Future<Output = ()> + Send + 'static {
        let state = self.0.clone();
        async move {
            loop {
                let waiting = state.inner().waiting;
                match waiting.map(|since| since + limit) {
                    Some(over) if over <= Instant::now() => break,
                    Some(over) => tokio::time::sleep_until(over).await,
                    None => tokio::time::sleep(limit / 4).await,
                }
            }
            state.cut(&format!("the host fell silent: nothing came from it for {} s", limit.as_secs()));
        }
    }
}

impl Drop for Scissors {
    fn drop(&mut self) {
        self.cut();
    }
}

fn severed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut on this side")
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        {
            let mut inner = this.state.inner();
            if inner.cut {
                return Poll::Ready(Err(severed()));
            }
            inner.reader = Some(context.waker().clone());
        }
        if !this.heard.is_empty() {
            let length = this.heard.len().min(into.remaining());
            into.put_slice(&this.heard[..length]);
            this.heard.drain(..length);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, into);
        let mut inner = this.state.inner();
        match &polled {
            Poll::Pending => {
                inner.waiting.get_or_insert_with(Instant::now);
            }
            Poll::Ready(result) => {
                inner.waiting = None;
                let end = match result {
                    Err(error) => Some(format!("the connection broke: {error}")),
                    Ok(()) if into.filled().len() == before => Some("the host closed the connection".to_owned()),
                    Ok(()) => None,
                };
                inner.end = inner.end.take().or(end);
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        {
            let mut inner = self.state.inner();
            if inner.cut {
                return Poll::Ready(Err(severed()));
            }
            inner.writer = Some(context.waker().clone());
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut inner = self.state.inner();
            if inner.cut {
                return Poll::Ready(Err(severed()));
            }
            inner.writer = Some(context.waker().clone());
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Nothing more is to be said: neither waited for, nor an error where the other side is gone already.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.state.inner().cut {
            let _ = Pin::new(&mut self.stream).poll_shutdown(context);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn what_was_heard_before_comes_first() {
        let (near, mut far) = duplex(64);
        let (mut line, _scissors) = Line::new(near, b"SSH-".to_vec());
        far.write_all(b"2.0").await.unwrap();
        drop(far);
        let mut all = String::new();
        line.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "SSH-2.0");
    }

    #[tokio::test]
    async fn whoever_waits_is_let_go_when_the_line_is_cut() {
        let (near, _far) = duplex(1);
        let (line, scissors) = Line::new(near, Vec::new());
        let (mut reads, mut writes) = tokio::io::split(line);
        let reading = tokio::spawn(async move { reads.read_u8().await });
        let writing = tokio::spawn(async move { writes.write_all(b"more than there is room for").await });
        tokio::task::yield_now().await;
        assert!(!reading.is_finished() && !writing.is_finished());
        drop(scissors);
        assert!(reading.await.unwrap().is_err());
        assert!(writing.await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_only_while_somebody_listens() {
        let (near, mut far) = duplex(64);
        let (mut line, scissors) = Line::new(near, Vec::new());
        let silent = tokio::spawn(scissors.when_silent(Duration::from_secs(60)));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(!silent.is_finished(), "nobody was listening");
        for _ in 0..10 {
            far.write_all(b"x").await.unwrap();
            line.read_u8().await.unwrap();
            let _ = tokio::time::timeout(Duration::from_secs(50), line.read_u8()).await;
        }
        assert!(!silent.is_finished(), "something came every 50 s");
        assert!(line.read_u8().await.is_err());
        assert!(silent.is_finished());
        assert_eq!(scissors.end().unwrap(), "the host fell silent: nothing came from it for 60 s");
    }
}
