//! Origins that break off, over real connections: nobody gets a clean end, and nothing is stored.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tachikoma_cache::Cache;
use tachikoma_http_cache::HttpCacheLayer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivatePkcs8KeyDer},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::site::{read, request};

/// How an origin breaks off.
#[derive(Debug, Clone, Copy)]
enum Break {
    /// Less than `Content-Length` says, then a close.
    Length,
    /// Chunks without the last one, then a close.
    Chunks,
    /// `RST_STREAM` in the middle of an HTTP/2 stream.
    Stream,
    /// A body that ends with its connection, over TLS, without a `close_notify`.
    Tls,
}

const SENT: &str = "this is the beginning of";

async fn pause(millis: u64) {
    let _ = tokio::time::timeout(Duration::from_millis(millis), std::future::pending::<()>()).await;
}

/// The readers that have not begun: an origin breaks off when there is none.
#[derive(Default)]
struct Readers(AtomicUsize);

impl Readers {
    fn expect(&self, count: usize) {
        self.0.store(count, SeqCst);
    }

    /// Its answer has come, its body has not.
    fn one_began(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    /// Until all have begun; or for thirty seconds, in which even a starved machine is so far.
    async fn all_began(&self) {
        for _ in 0..3_000 {
            if self.0.load(SeqCst) == 0 {
                break;
            }
            pause(10).await;
        }
    }
}

async fn say<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: T,
    framing: &str,
    body: &str,
    readers: &Readers,
) {
    let mut head = [0; 4_096];
    let _ = stream.read(&mut head).await;
    let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{framing}\r\n{body}");
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.flush().await;
    readers.all_began().await;
}

/// A body that begins and is reset when all readers have begun.
struct Reset {
    has_begun: bool,
    all_began: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Reset {
    fn new(readers: Arc<Readers>) -> Self {
        Self { has_begun: false, all_began: Box::pin(async move { readers.all_began().await }) }
    }
}

impl http_body::Body for Reset {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Poll::Ready(Some(Ok(Frame::data(SENT.into()))));
        }
        let reset = |()| Some(Err(std::io::ErrorKind::ConnectionReset.into()));
        self.all_began.as_mut().poll(cx).map(reset)
    }
}

struct Certificate {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(["origin.test".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Certificate { server: Arc::new(server), client: Arc::new(client) }
}

async fn serve(how: Break, stream: TcpStream, certificate: &Certificate, readers: &Arc<Readers>) {
    match how {
        Break::Length => say(stream, "Content-Length: 1000\r\n", SENT, readers).await,
        Break::Chunks => {
            let chunk = format!("{:x}\r\n{SENT}\r\n", SENT.len());
            say(stream, "Transfer-Encoding: chunked\r\n", &chunk, readers).await;
        }
        Break::Stream => {
            let answer = hyper::service::service_fn(|_| {
                let body = Reset::new(Arc::clone(readers));
                let answer = Response::builder().header("cache-control", "max-age=60");
                std::future::ready(Ok::<_, Infallible>(answer.body(body).unwrap()))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        }
        Break::Tls => {
            let acceptor = TlsAcceptor::from(Arc::clone(&certificate.server));
            // Dropped without a shutdown, it says no farewell.
            let stream = acceptor.accept(stream).await.unwrap();
            say(stream, "Connection: close\r\n", SENT, readers).await;
        }
    }
}

/// One exchange on a connection of its own.
async fn ask(
    how: Break,
    origin: std::net::SocketAddr,
    certificate: Arc<Certificate>,
    request: Request<Body>,
) -> Result<Response<Body>, hyper::Error> {
    let stream = TcpStream::connect(origin).await.unwrap();
    let answer = match how {
        Break::Stream => {
            let io = TokioIo::new(stream);
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
            let (mut sender, connection) = handshake.await?;
            tokio::spawn(connection);
            let (mut parts, body) = request.into_parts();
            parts.uri = format!("http://shop.test{}", parts.uri).parse().unwrap();
            let answer = sender.send_request(Request::from_parts(parts, body)).await?;
            // The connection lives as long as somebody may ask.
            tokio::spawn(async move {
                pause(300).await;
                drop(sender);
            });
            answer
        }
        Break::Tls => {
            let connector = TlsConnector::from(Arc::clone(&certificate.client));
            let name = "origin.test".try_into().unwrap();
            let io = TokioIo::new(connector.connect(name, stream).await.unwrap());
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
        Break::Length | Break::Chunks => {
            let io = TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
    };
    Ok(answer.map(Body::new))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_an_origin_breaks_off_no_reader_gets_a_clean_end_and_nothing_is_stored() {
    let certificate = Arc::new(certificate());
    for how in [Break::Length, Break::Chunks, Break::Stream, Break::Tls] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = listener.local_addr().unwrap();
        let readers = Arc::new(Readers::default());
        let (served, awaited) = (Arc::clone(&certificate), Arc::clone(&readers));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (served, awaited) = (Arc::clone(&served), Arc::clone(&awaited));
                tokio::spawn(async move { serve(how, stream, &served, &awaited).await });
            }
        });
        for count in [1, 50] {
            readers.expect(count);
            let asked = Arc::clone(&certificate);
            let forward = service_fn(move |request| ask(how, origin, Arc::clone(&asked), request));
            let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
            let (cache, service) = (layer.handle(), layer.layer(forward));
            let answers = join_all((0..count).map(|_| {
                let asked = service.clone().oneshot(request("GET", "/", &[]));
                async {
                    let answer = asked.await.unwrap();
                    readers.one_began();
                    read(answer.map(Body::new)).await
                }
            }))
            .await;
            let clean = answers.iter().filter(|answer| answer.body.is_ok()).count();
            assert_eq!(clean, 0, "{how:?}: clean ends among {count}");
            assert!(answers.iter().all(|answer| answer.status == 200));
            assert_eq!(cache.stats().stored, 0, "{how:?}: stored");
        }
        server.abort();
    }
}

/// What came before it broke off did reach its reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_beginning_of_a_broken_response_is_passed_on() {
    let certificate = Arc::new(certificate());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let readers = Arc::new(Readers::default());
    readers.expect(1);
    let (served, awaited) = (Arc::clone(&certificate), Arc::clone(&readers));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(Break::Length, stream, &served, &awaited).await;
    });
    let forward =
        service_fn(move |request| ask(Break::Length, origin, Arc::clone(&certificate), request));
    let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
    let answer = layer.layer(forward).oneshot(request("GET", "/", &[])).await.unwrap();
    let mut body = Body::new(answer.into_body());
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), SENT);
    readers.one_began();
    assert!(body.frame().await.unwrap().is_err());
}

/// A cache nearer to the client takes what broke off behind it for nothing whole either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_in_front_of_a_cache_stores_no_part_of_what_broke_off() {
    let certificate = Arc::new(certificate());
    for how in [Break::Length, Break::Chunks, Break::Stream] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = listener.local_addr().unwrap();
        let readers = Arc::new(Readers::default());
        let (served, awaited) = (Arc::clone(&certificate), Arc::clone(&readers));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (served, awaited) = (Arc::clone(&served), Arc::clone(&awaited));
                tokio::spawn(async move { serve(how, stream, &served, &awaited).await });
            }
        });
        let asked = Arc::clone(&certificate);
        let forward = service_fn(move |request| ask(how, origin, Arc::clone(&asked), request));
        let far = HttpCacheLayer::new(Cache::memory().build().unwrap());
        let near = HttpCacheLayer::new(Cache::memory().build().unwrap());
        let (tiers, service) = ([far.handle(), near.handle()], near.layer(far.layer(forward)));
        readers.expect(10);
        let answers = join_all((0..10).map(|_| {
            let asked = service.clone().oneshot(request("GET", "/", &[]));
            async {
                let answer = asked.await.unwrap();
                readers.one_began();
                read(answer.map(Body::new)).await
            }
        }));
        assert!(answers.await.iter().all(|answer| answer.body.is_err()), "{how:?}: a clean end");
        assert!(tiers.iter().all(|tier| tier.stats().stored == 0), "{how:?}: stored");
        server.abort();
    }
}
