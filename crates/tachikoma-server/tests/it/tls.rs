//! TLS for clients and to upstreams, and what is said of certificates that cannot work.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use tachikoma_testkit::Stopwatch;
use tempfile::TempDir;

use crate::support::{Connection, Origin, Tachikoma, get, head, run, send};

/// An authority, and a certificate of it for `a.test` and `127.0.0.1`, as files.
struct Files {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { folder: tempfile::tempdir().unwrap(), authority };
        files.write("ca.pem", &files.authority.pem());
        files.issue("cert.pem", "key.pem", 2060);
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn issue(&self, cert: &str, key: &str, until: i32) {
        let names = vec!["a.test".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let pair = KeyPair::generate().unwrap();
        let signed = params.signed_by(&pair, &self.authority).unwrap();
        self.write(cert, &signed.pem());
        self.write(key, &pair.serialize_pem());
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn serve(&self, upstream: &str, more: &[&str]) -> Tachikoma {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let own = ["--upstream", upstream, "--tls-cert", &cert, "--tls-key", &key];
        Tachikoma::serve(&[&own[..], more].concat())
    }
}

/// Sends `request` within TLS and reads all of the answer.
fn ask(files: &Files, address: SocketAddr, request: &str) -> String {
    let name = ServerName::try_from("a.test").unwrap();
    let connection = ClientConnection::new(files.client(&["http/1.1"]), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn the_method_purge_with_the_host_of_the_site_reaches_what_is_behind_tls() {
    let (files, origin) = (Files::new(), Origin::saying("hello"));
    files.write("token", "admin-token-0123456789");
    let server = files.serve(&origin.url(), &["--admin-token-file", &files.path("token")]);
    let request = "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    for _ in 0..2 {
        assert!(ask(&files, server.address(), request).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!(origin.seen().len(), 1);
    let lines = "Host: a.test\r\nAuthorization: Bearer admin-token-0123456789\r\n";
    let answer = send(server.admin(), format!("PURGE /x HTTP/1.1\r\n{lines}\r\n"));
    assert_eq!((answer.status, &answer.json()["removed"]["memory"]), (200, &1.into()));
    assert!(ask(&files, server.address(), request).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_client_within_tls_is_served_and_the_origin_is_told() {
    let (files, origin) = (Files::new(), Origin::saying("hello"));
    let server = files.serve(&origin.url(), &[]);
    for target in ["/x", "/x", "https://a.test/x"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let answer = ask(&files, server.address(), &request);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    }
    let seen = origin.only();
    assert_eq!(seen.target(), "/x");
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("forwarded"), ["for=127.0.0.1;host=\"a.test\";proto=https"]);
    for target in ["http://a.test/x", "https://b.test/x"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let answer = ask(&files, server.address(), &request);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[test]
fn http_2_is_agreed_on_within_tls() {
    let (files, origin) = (Files::new(), Origin::saying("hello"));
    let server = files.serve(&origin.url(), &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        let connector = tokio_rustls::TlsConnector::from(files.client(&["h2", "http/1.1"]));
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://a.test/y").body(Full::<Bytes>::default()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"hello");
    });
    assert_eq!(origin.only().all("via"), ["2 tachikoma"]);
}

#[test]
fn who_speaks_no_tls_or_says_nothing_loses_the_connection_and_harms_nobody() {
    let (files, origin) = (Files::new(), Origin::saying("hello"));
    let server = files.serve(&origin.url(), &["--limit-head-timeout", "300ms"]);
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..], b"\x16\x03\x01", b""] {
        let watch = Stopwatch::start();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(watch.elapsed() < Duration::from_secs(5), "{bytes:?}: {:?}", watch.elapsed());
    }
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    assert!(ask(&files, server.address(), request).ends_with("hello"));
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_certificate_that_cannot_work_is_refused_by_name_before_the_server_starts() {
    let files = Files::new();
    files.issue("old.pem", "old.key", 2021);
    files.issue("other.pem", "other.key", 2060);
    files.write("empty.pem", "");
    files.write("text.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (cert, key, said) in [
        ("none.pem", "key.pem", "none.pem cannot be read: No such file"),
        ("cert.pem", "none.key", "none.key cannot be read: No such file"),
        ("old.pem", "old.key", "old.pem expired on 2021-01-01"),
        ("cert.pem", "other.key", "other.key is not the key of the certificate in"),
        ("empty.pem", "key.pem", "empty.pem holds no certificate in PEM form"),
        ("text.pem", "key.pem", "text.pem is no X.509 certificate"),
        ("key.pem", "key.pem", "key.pem holds no certificate in PEM form"),
        ("cert.pem", "cert.pem", "cert.pem holds no private key in PEM form"),
    ] {
        let (cert, key) = (files.path(cert), files.path(key));
        let arguments = ["config", "check", "--api", "--tls-cert", &cert, "--tls-key", &key];
        let ended = run(&arguments, &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(said), "{}\n  not: {said}", ended.err);
        assert!(ended.err.contains("tls."), "{}", ended.err);
        assert!(!ended.err.contains("PRIVATE KEY"), "{}", ended.err);
    }
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    for (flag, file, said) in
        [("--tls-cert", &cert, "tls.key is not"), ("--tls-key", &key, "tls.cert is not")]
    {
        let ended = run(&["config", "check", "--api", flag, file], &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(said), "{}", ended.err);
    }
    let both = ["config", "check", "--api", "--tls-cert", &cert, "--tls-key", &key];
    assert_eq!(run(&both, &[]).out, "ok\n");
}

/// An origin within TLS that answers each connection with these bytes. It says goodbye properly
/// only where `notify` says so.
fn secure_origin(files: &Files, answer: &'static str, notify: bool) -> SocketAddr {
    let pem = |name: &str| fs::read(files.path(name)).unwrap();
    let cert = CertificateDer::from_pem_slice(&pem("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![cert], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let connection = rustls::ServerConnection::new(config).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                if head(&mut stream).is_none() {
                    return;
                }
                stream.write_all(answer.as_bytes()).unwrap();
                if notify {
                    stream.conn.send_close_notify();
                    stream.flush().unwrap();
                }
            });
        }
    });
    address
}

const WHOLE: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nCache-Control: max-age=60\r\n\r\nhello";

#[test]
fn an_upstream_within_tls_is_spoken_to_when_its_certificate_is_trusted() {
    let files = Files::new();
    let url = format!("https://{}", secure_origin(&files, WHOLE, true));
    let ca = files.path("ca.pem");
    let server = Tachikoma::serve(&["--upstream", &url, "--tls-upstream-ca", &ca]);
    assert_eq!(get(server.address(), "/").text(), "hello");
    assert!(get(server.address(), "/").header("cache-status").unwrap().contains("hit"));

    let server = Tachikoma::serve(&["--upstream", &url]);
    let answer = get(server.address(), "/");
    answer.assert_problem(502);
    assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    server.assert_logged("invalid peer certificate");
    // It is another host's certificate.
    let url = url.replace("127.0.0.1", "localhost");
    let server = Tachikoma::serve(&["--upstream", &url, "--tls-upstream-ca", &ca]);
    get(server.address(), "/").assert_problem(502);
}

/// FM-34.
#[test]
fn a_body_within_tls_that_breaks_off_never_ends_cleanly_and_is_not_stored() {
    let files = Files::new();
    let ca = files.path("ca.pem");
    for (answer, notify) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nCache-Control: max-age=60\r\n\r\nhello", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nCache-Control: max-age=60\r\n\r\nhello", false),
        // Its end is the connection's, and nobody said that this is it.
        ("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nhello", false),
    ] {
        let url = format!("https://{}", secure_origin(&files, answer, notify));
        let server = Tachikoma::serve(&["--upstream", &url, "--tls-upstream-ca", &ca]);
        let address = server.address();
        for readers in [1, 50] {
            let mut open: Vec<_> = (0..readers).map(|_| Connection::to(address)).collect();
            for connection in &mut open {
                connection.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
            }
            // Where it breaks off at once, not even its head is sent.
            for got in open.iter_mut().filter_map(Connection::read) {
                assert!(!got.complete, "{answer:?} {notify}: {got:?}");
                assert!(!got.header("cache-status").unwrap().contains("hit"), "{got:?}");
            }
        }
    }
}

#[test]
fn an_upstream_that_does_not_shake_hands_is_a_504_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = Tachikoma::serve(&["--upstream", &url, "--proxy-connect-timeout", "300ms"]);
    let watch = Stopwatch::start();
    get(server.address(), "/").assert_problem(504);
    let took = watch.elapsed();
    assert!((300..2000).contains(&took.as_millis()), "{took:?}");
}
