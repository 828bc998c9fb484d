//! The API over a real socket: keep-alive, pipelining of mistakes, clients that leave.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::Api;

/// Serves the API on a free port; the address as clients use it.
async fn serve(api: &Api) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = api.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// Sends bytes on a connection of their own and reads until the server closes it.
async fn exchange(address: &str, sent: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_mission_is_created_and_read_over_a_socket_first_a_load_then_a_hit() {
    let (_file, api, _clock) = Api::new().await;
    let address = serve(&api).await;
    let body = r#"{"title":"over TCP"}"#;
    let head = "POST /api/v1/missions HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\
                content-type: application/json";
    let created = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let created = exchange(&address, &created).await;
    assert!(created.starts_with("HTTP/1.1 201 Created\r\n"), "{created}");
    let mission: Value = serde_json::from_str(created.split_once("\r\n\r\n").unwrap().1).unwrap();
    let path = format!("/api/v1/missions/{}", mission["id"].as_str().unwrap());
    for did in ["load", "hit"] {
        let read = exchange(&address, &get(&path)).await;
        assert!(read.starts_with("HTTP/1.1 200 OK\r\n"), "{read}");
        assert!(read.contains(&format!("server-timing: cache;desc={did}\r\n")), "{read}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_over_a_socket_too() {
    let (_file, api, _clock) = Api::new().await;
    let address = serve(&api).await;
    let answer = exchange(&address, &get("/nothing")).await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let (_file, api, _clock) = Api::new().await;
    let address = serve(&api).await;
    let head = "POST /api/v1/missions HTTP/1.1\r\nhost: api\r\nexpect: 100-continue\r\n\
                content-type: application/json\r\ncontent-length: 5000000\r\n\r\n";
    let answer = exchange(&address, head).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_breaks_off_creates_nothing() {
    let (_file, api, _clock) = Api::new().await;
    let address = serve(&api).await;
    let head = "POST /api/v1/missions HTTP/1.1\r\nhost: api\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{\"title\":\"t\"}";
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().ok();
    assert_eq!(api.get("/api/v1/missions").await.json()["total"], 0);
}
