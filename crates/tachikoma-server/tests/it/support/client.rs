//! A client that sends exactly the bytes it is told to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// A response as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to the end that its framing promised.
    pub(crate) complete: bool,
}

impl Answer {
    /// The values of a field, joined as RFC 9110 §5.3 allows.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Expects an `application/problem+json` of this status.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type").as_deref(), Some("application/problem+json"));
        assert_eq!(self.header("cache-control").as_deref(), Some("no-store"));
        assert_eq!(self.json()["status"], status);
    }
}

/// A connection that is kept between requests.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::open(address).unwrap()
    }

    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// From this address of this machine.
    pub(crate) fn from(own: IpAddr, to: SocketAddr) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(own, 0))?;
            socket.connect(to).await?.into_std()
        })?;
        stream.set_nonblocking(false)?;
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// Whether something has come that was not read yet.
    pub(crate) fn has_answer(&mut self) -> bool {
        self.0.get_ref().set_nonblocking(true).unwrap();
        let came = self.0.fill_buf().is_ok();
        self.0.get_ref().set_nonblocking(false).unwrap();
        came
    }

    /// Reads one response; `None` when the connection ended before its head was in.
    pub(crate) fn read(&mut self) -> Option<Answer> {
        let mut answer = self.read_head()?;
        answer.complete = self.read_body(&mut answer);
        Some(answer)
    }

    /// Whether the server has ended the connection, with nothing more on it.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.0.fill_buf().map_or(true, <[u8]>::is_empty)
    }

    /// Reads the head of one response, as that to HEAD.
    pub(crate) fn read_head(&mut self) -> Option<Answer> {
        let mut status = String::new();
        if self.0.read_line(&mut status).ok()? == 0 {
            return None;
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let status = status.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, headers, body: Vec::new(), complete: true })
    }

    fn read_body(&mut self, answer: &mut Answer) -> bool {
        if answer.header("transfer-encoding").is_some() {
            return self.read_chunks(&mut answer.body).is_some();
        }
        match answer.header("content-length").and_then(|length| length.parse::<u64>().ok()) {
            Some(_) if answer.status == 304 => true,
            Some(length) => {
                let read = (&mut self.0).take(length).read_to_end(&mut answer.body);
                read.is_ok() && answer.body.len() as u64 == length
            }
            None if answer.status == 204 || answer.status == 304 => true,
            None => self.0.read_to_end(&mut answer.body).is_ok(),
        }
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let size = u64::from_str_radix(line.trim(), 16).ok()?;
            let before = body.len();
            (&mut self.0).take(size).read_to_end(body).ok()?;
            if ((body.len() - before) as u64) < size {
                return None;
            }
            let mut end = String::new();
            self.0.read_line(&mut end).ok().filter(|read| *read > 0)?;
            if size == 0 {
                return Some(());
            }
        }
    }
}

/// Sends these bytes on a new connection and reads one response.
pub(crate) fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::to(address);
    // The server may answer and close before it has read everything.
    let _ = connection.write(bytes);
    connection.read().expect("a response")
}

/// A plain GET.
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    send(address, format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"))
}
