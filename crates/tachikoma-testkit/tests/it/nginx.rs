//! The nginx of the tests.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tachikoma_testkit::{NginxServer, wait_until};

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn it_serves_a_folder_with_validators_and_says_what_it_was_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("a.txt"), "hello").expect("a file");
    let nginx = NginxServer::serving_with(folder.path(), "add_header Cache-Control max-age=60;");
    let answer = get(nginx.port(), "/a.txt").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\r\nETag: ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(answer.contains("\r\nCache-Control: max-age=60\r\n"), "{answer}");
    let missing = get(nginx.port(), "/none").expect("an answer");
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    let logged = wait_until(Duration::from_secs(5), || {
        nginx.requests() == ["GET /a.txt 200", "GET /none 404"]
    });
    assert!(logged, "{:?}", nginx.requests());
}

#[test]
fn it_dies_and_comes_back_on_its_port() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut nginx = NginxServer::serving(folder.path());
    nginx.kill();
    assert!(get(nginx.port(), "/").is_err());
    nginx.restart();
    assert!(get(nginx.port(), "/none").expect("an answer").starts_with("HTTP/1.1 404"));
}
