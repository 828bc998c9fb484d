//! The Redis store over TLS, with certificates that are made on the spot (DS-33).
//!
//! Which authorities are trusted is the system's choice (`SSL_CERT_FILE`), so each test runs itself
//! again in a process that has it set.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tachikoma_cache::clock::Deadline;
use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::store::{Cx, Store};
use tachikoma_cache::{Clock, ErrorKind, Health, Namespace, SystemClock};
use tachikoma_testkit::{RedisServer, free_port};

const INSIDE: &str = "TACHIKOMA_TEST_TLS";

/// The server's certificate, as [`serve`] makes it.
#[derive(Clone, Copy, PartialEq)]
enum Certificate {
    Good,
    OtherName,
    Expired,
    SelfSigned,
    /// A good one, but the server speaks only a version of TLS that is broken.
    OldVersion,
}

/// Starts a server with TLS and runs the test named `test` against it, in its own process.
fn check(test: &str, certificate: Certificate) {
    if let Ok(port) = std::env::var(INSIDE) {
        return inside(&port, certificate);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(file("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let name = if certificate == Certificate::OtherName { "other.test" } else { "localhost" };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if certificate == Certificate::Expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let made = if certificate == Certificate::SelfSigned {
        params.self_signed(&key)
    } else {
        params.signed_by(&key, &issuer)
    };
    fs::write(file("server.pem"), made.unwrap().pem()).unwrap();
    fs::write(file("server.key"), key.serialize_pem()).unwrap();
    let port = free_port().to_string();
    let (pem, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let _server = RedisServer::builder()
        .arguments(["--tls-port", &port, "--tls-auth-clients", "no"])
        .arguments(if certificate == Certificate::OldVersion {
            ["--tls-protocols", "TLSv1.1"]
        } else {
            ["--tls-protocols", "TLSv1.2 TLSv1.3"]
        })
        .arguments(["--tls-cert-file", &pem, "--tls-key-file", &key, "--tls-ca-cert-file", &ca])
        .start();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &port)
        .env("SSL_CERT_FILE", &ca)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{wrong}");
}

fn inside(port: &str, certificate: Certificate) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = format!("rediss://localhost:{port}/0");
        let config = RedisConfig::from_url(&url).unwrap().0.connect_timeout(Duration::from_secs(5));
        let clock = Arc::new(SystemClock::new());
        let store = RedisStore::connect(config, clock.clone()).await.unwrap();
        let space = Namespace::new("test").unwrap();
        let cx = Cx { now: clock.now(), deadline: Deadline::after(Duration::from_secs(5)) };
        let answer = store.groups().snapshot(&space, &cx).await;
        if certificate == Certificate::Good {
            assert_eq!(store.health(), Health::Up);
            assert!(answer.is_ok(), "{answer:?}");
        } else {
            let health = store.health();
            let Health::Degraded { reason, .. } = &health else { panic!("{health:?}") };
            let said = reason.contains("certificate");
            assert_eq!(said, certificate != Certificate::OldVersion, "{reason}");
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    });
}

#[test]
fn a_certificate_of_a_trusted_authority_is_accepted() {
    check("a_certificate_of_a_trusted_authority_is_accepted", Certificate::Good);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    check("a_certificate_for_another_name_is_refused", Certificate::OtherName);
}

#[test]
fn an_expired_certificate_is_refused() {
    check("an_expired_certificate_is_refused", Certificate::Expired);
}

#[test]
fn a_self_signed_certificate_is_refused() {
    check("a_self_signed_certificate_is_refused", Certificate::SelfSigned);
}

#[test]
fn a_server_that_only_speaks_tls_1_1_is_refused() {
    check("a_server_that_only_speaks_tls_1_1_is_refused", Certificate::OldVersion);
}
