//! Whether this operator still leads, asked at the last moment before anything is done.
//!
//! A leader that was frozen past its lease finds out when its election loop runs again; a request that was about to be
//! sent may run first. So the time that it leads until stands beside every request that changes anything, and every byte
//! for a node: what comes later is refused here. What remains is a freeze between this look and the sending, for which
//! the node's own lock and the preconditions of writes are there.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request};
use tokio::{io::AsyncWrite, time::Instant};
use tower::{BoxError, Layer, Service};

use crate::transport::{Channel, OpenError, Transport};
use pallet_api::reason::Reason;
use pallet_core::target::Target;

/// For how long this operator leads, by its own clock.
#[derive(Clone, Debug)]
pub struct Lead {
    began: Instant,
    /// In milliseconds since.
    until: Arc<AtomicU64>,
}

/// This operator was replaced, or has to take it that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this operator does not lead any more")]
pub struct NotLeading;

impl Lead {
    /// Of an operator that is alone.
    pub fn always() -> Self {
        Self { began: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Of one that is not elected yet.
    pub fn not_yet() -> Self {
        Self { began: Instant::now(), until: Arc::new(AtomicU64::new(0)) }
    }

    /// # Errors
    /// Where the time is over.
    pub fn check(&self) -> Result<(), NotLeading> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now < self.until.load(Ordering::Acquire) { Ok(()) } else { Err(NotLeading) }
    }

    /// The lease was renewed by a request that was sent at that moment, and holds for so long from then on.
    pub fn extend(&self, sent: Instant, holds: Duration) {
        let until = sent.saturating_duration_since(self.began) + holds;
        self.until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// The term is over.
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}

/// Lets a client change nothing for an operator that does not lead.
impl<S> Layer<S> for Lead {
    type Service = Fenced<S>;
    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { inner, lead: self.clone() }
    }
}

/// A client or a transport behind a [`Lead`].
#[derive(Clone, Debug)]
pub struct Fenced<S> {
    inner: S,
    lead: Lead,
}

impl<S> Fenced<S> {
    /// Opens and carries sessions for an operator that leads only.
    pub fn new(inner: S, lead: Lead) -> Self {
        Self { inner, lead }
    }
}

impl<S, B> Service<Request<B>> for Fenced<S>
where
    S: Service<Request<B>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !matches!(*request.method(), Method::GET | Method::HEAD)
            && let Err(error) = self.lead.check()
        {
            return async move { Err(error.into()) }.boxed();
        }
        self.inner.call(request).boxed()
    }
}

impl<T: Transport> Transport for Fenced<T> {
    fn open<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
        async move {
            let refused = |error: NotLeading| OpenError::new(Reason::NotLeading, error.to_string());
            self.lead.check().map_err(refused)?;
            let channel = self.inner.open(target).await?;
            let input = Box::new(FencedWrite { inner: channel.input, lead: self.lead.clone() });
            Ok(Channel { input, ..channel })
        }
        .boxed()
    }
}

/// What a node reads.
struct FencedWrite {
    inner: Box<dyn AsyncWrite + Send + Unpin>,
    lead: Lead,
}

impl AsyncWrite for FencedWrite {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Err(error) = self.lead.check() {
            return Poll::Ready(Err(io::Error::other(error)));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pallet_core::target::Container;
    use tokio::io::{AsyncRead, AsyncWriteExt};
    use tower::{ServiceExt, service_fn};

    #[tokio::test(start_paused = true)]
    async fn a_lead_ends_by_itself() {
        let lead = Lead::not_yet();
        assert_eq!(lead.check(), Err(NotLeading));
        lead.extend(Instant::now(), Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(lead.check(), Ok(()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(lead.check(), Err(NotLeading));
        lead.extend(Instant::now(), Duration::from_secs(10));
        lead.end();
        assert_eq!(lead.check(), Err(NotLeading));
        assert_eq!(Lead::always().check(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_former_leader_reads_and_changes_nothing() {
        let lead = Lead::not_yet();
        let client = lead.layer(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(()) }));
        let ask = |method: Method| client.clone().oneshot(Request::builder().method(method).body(()).unwrap());
        assert!(ask(Method::GET).await.is_ok());
        for method in [Method::POST, Method::PATCH, Method::PUT, Method::DELETE] {
            assert!(ask(method).await.is_err());
        }
        lead.extend(Instant::now(), Duration::from_secs(10));
        assert!(ask(Method::POST).await.is_ok());
    }

    /// A node on the other end of a pipe.
    struct Pipe;

    impl Transport for Pipe {
        fn open<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
            let (near, far) = tokio::io::duplex(64);
            let closed = std::future::pending().boxed();
            let output: Box<dyn AsyncRead + Send + Unpin> = Box::new(tokio::io::empty());
            std::future::ready(Ok(Channel { input: Box::new(near), output, closed, guard: Box::new(far) })).boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_outlives_its_leader_says_nothing_more() {
        let lead = Lead::not_yet();
        let transport = Fenced::new(Pipe, lead.clone());
        let target = Target::Container(Container { namespace: "a".into(), pod: "b".into(), container: "c".into() });
        assert_eq!(transport.open(&target).await.err().unwrap().reason, "NotLeading");
        lead.extend(Instant::now(), Duration::from_secs(10));
        let mut channel = transport.open(&target).await.unwrap();
        assert!(channel.input.write_all(b"hello\n").await.is_ok());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(channel.input.write_all(b"run\n").await.is_err());
    }
}
