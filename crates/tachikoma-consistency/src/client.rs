//! A blocking HTTP/1.1 client for one node: one connection, one request at a time, a deadline.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

/// What a node answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The fields that tell what a cache did, as they came.
    pub(crate) cache: String,
    pub(crate) body: String,
}

/// A connection that is opened anew after a failure.
#[derive(Debug)]
pub(crate) struct Client {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn to(port: u16) -> Self {
        Self { port, stream: None }
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let answer = self.exchange(method, path, body);
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let address = ([127, 0, 0, 1], self.port).into();
                let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
                stream.set_read_timeout(Some(DEADLINE))?;
                stream.set_write_timeout(Some(DEADLINE))?;
                stream.set_nodelay(true)?;
                none.insert(BufReader::new(stream))
            }
        };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: drill.test\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.get_mut().write_all(request.as_bytes())?;
        receive(stream)
    }
}

fn receive(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let head = line(stream)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| invalid(&head))?;
    let (mut length, mut chunked, mut cache) = (0, false, String::new());
    loop {
        let field = line(stream)?;
        let Some((name, value)) = field.split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| invalid(&field))?,
            "transfer-encoding" => chunked = true,
            "cache-status" | "server-timing" => cache.push_str(value),
            _ => {}
        }
    }
    let mut body = Vec::new();
    while chunked {
        let size = line(stream)?;
        length = usize::from_str_radix(&size, 16).map_err(|_| invalid(&size))?;
        read(stream, length, &mut body)?;
        line(stream)?;
        chunked = length > 0;
        length = 0;
    }
    read(stream, length, &mut body)?;
    Ok(Answer { status, cache, body: String::from_utf8_lossy(&body).into_owned() })
}

fn read(stream: &mut BufReader<TcpStream>, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    let before = body.len();
    body.resize(before + length, 0);
    stream.read_exact(body.get_mut(before..).unwrap_or_default())
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {text:?}"))
}
