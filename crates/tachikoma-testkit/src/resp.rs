//! A blocking Redis client for checks: one command, one reply, a deadline.
//!
//! Written apart from the client of the library under test, so that a test never asks the code
//! it checks. It speaks RESP2 only, which is what a server speaks before `HELLO`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One reply of a Redis server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resp {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:42`
    Integer(i64),
    /// `$3…`: any bytes.
    Bulk(Vec<u8>),
    /// A missing value.
    Nil,
    /// `*2…`
    Array(Vec<Resp>),
}

impl Resp {
    /// The integer of this reply.
    ///
    /// # Panics
    ///
    /// If it is anything else.
    #[must_use]
    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("expected an integer, got {other:?}"),
        }
    }

    /// The text of this reply: a simple string, or bytes that are UTF-8.
    ///
    /// # Panics
    ///
    /// If it is anything else.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8(bytes.clone()).expect("the reply is UTF-8"),
            other => panic!("expected a string, got {other:?}"),
        }
    }

    /// The elements of this reply.
    ///
    /// # Panics
    ///
    /// If it is not an array.
    #[must_use]
    #[track_caller]
    pub fn array(&self) -> &[Self] {
        match self {
            Self::Array(elements) => elements,
            other => panic!("expected an array, got {other:?}"),
        }
    }
}

/// One connection to a Redis server. Reads and writes end with an error after the deadline.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a port of 127.0.0.1; `deadline` holds for each later read and write too.
    ///
    /// # Errors
    ///
    /// When nobody listens, or nobody accepts in time.
    pub fn open(port: u16, deadline: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), deadline)?;
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(deadline))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    ///
    /// When the connection ends, the deadline passes, or the reply is not RESP2.
    pub fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Resp> {
        self.send(arguments)?;
        self.receive()
    }

    /// Sends one command without reading its reply, for pipelines and subscriptions.
    ///
    /// # Errors
    ///
    /// When the connection has ended or the deadline passes.
    pub fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            let bytes = argument.as_ref();
            request.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            request.extend_from_slice(bytes);
            request.extend_from_slice(b"\r\n");
        }
        self.reader.get_mut().write_all(&request)
    }

    /// Reads the next reply.
    ///
    /// # Errors
    ///
    /// When the connection ends, the deadline passes, or the reply is not RESP2.
    pub fn receive(&mut self) -> io::Result<Resp> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| invalid(&line))?;
        Ok(match kind {
            "+" => Resp::Simple(rest.to_owned()),
            "-" => Resp::Error(rest.to_owned()),
            ":" => Resp::Integer(rest.parse().map_err(|_| invalid(&line))?),
            "$" => match length(rest, &line)? {
                Some(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.reader.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Resp::Bulk(bytes)
                }
                None => Resp::Nil,
            },
            "*" => match length(rest, &line)? {
                Some(length) => {
                    Resp::Array((0..length).map(|_| self.receive()).collect::<io::Result<_>>()?)
                }
                None => Resp::Nil,
            },
            _ => return Err(invalid(&line)),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn length(text: &str, line: &str) -> io::Result<Option<usize>> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(number) => usize::try_from(number).map(Some).map_err(|_| invalid(line)),
        Err(_) => Err(invalid(line)),
    }
}

fn invalid(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a RESP2 reply: {line:?}"))
}
