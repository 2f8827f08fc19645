//! A client that sends what it is given at once.
//!
//! The stack that comes with `kube` leaves Nagle's algorithm on. A script goes in several messages, and all but the first
//! would wait for an acknowledgement that the other side has no reason to hurry with: 40 ms for each run.

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Config,
    client::{Body, ClientBuilder, ConfigExt},
};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxService};

/// What carries requests.
pub type Stack = BoxService<Request<Body>, Response<Incoming>, BoxError>;

/// A client for exec: without retries, compression, or a deadline for what has begun.
///
/// # Errors
/// Where the configuration's certificates, credentials or headers cannot be used.
pub fn client(config: &Config) -> kube::Result<ClientBuilder<Stack>> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let client = legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(ClientBuilder::new(service.boxed(), config.default_namespace.clone()))
}
