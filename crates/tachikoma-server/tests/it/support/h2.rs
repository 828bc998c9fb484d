//! HTTP/2 frames by hand, to send what no library would.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as literals that no table remembers (RFC 7541 §6.2.2).
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // Seven bits of a length, then seven more at a time (RFC 7541 §5.1).
            if text.len() < 127 {
                block.push(u8::try_from(text.len()).unwrap());
            } else {
                block.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The head of a request for a path.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    fields(&[(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)])
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection that begins with the preface and these settings.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &settings)).unwrap();
        Self(stream)
    }

    /// The next frame, or `None` at the end of the connection.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Sends `bytes` until they are gone or the server has had enough, while what it sends is
    /// read; whether it ended the connection.
    pub(crate) fn flooded_out(mut self, bytes: Vec<u8>) -> bool {
        let mut writer = self.0.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&bytes).is_err());
        while self.read().is_some() {}
        // The end of what comes is the end of the connection, unless it was only time.
        let is_over = self.0.write_all(&frame(PING, 0, 0, &[0; 8])).is_err() || {
            std::thread::sleep(Duration::from_millis(50));
            self.0.write_all(&frame(PING, 0, 0, &[0; 8])).is_err()
        };
        writing.join().unwrap() || is_over
    }
}

/// Floods of ten thousand frames, by name, that no honest client sends.
pub(crate) fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let open = frame(HEADERS, END_HEADERS, 1, &request("POST", "/"));
    let many = |one: &[u8]| one.repeat(10_000);
    let each = |of: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> {
        (0..10_000).flat_map(|n| of(2 * n + 1)).collect()
    };
    let head = request("GET", "/");
    let asked = |id: u32| frame(HEADERS, END_HEADERS | END_STREAM, id, &head);
    let long = fields(&[("x", &"y".repeat(1000))]);
    let begun = frame(HEADERS, 0, 1, &head);
    let reset = |id: u32| frame(RST_STREAM, 0, id, &8_u32.to_be_bytes());
    let no_room = |id: u32| frame(WINDOW_UPDATE, 0, id, &0_u32.to_be_bytes());
    let crumb = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    vec![
        ("rapid reset", each(&|id| [asked(id), reset(id)].concat())),
        ("made you reset", each(&|id| [asked(id), no_room(id)].concat())),
        ("made you reset by data", each(&|id| [asked(id), frame(DATA, 0, id, b"x")].concat())),
        ("continuation", [begun.clone(), many(&frame(CONTINUATION, 0, 1, &long))].concat()),
        ("empty continuation", [begun, many(&frame(CONTINUATION, 0, 1, b""))].concat()),
        ("empty data", [open, many(&frame(DATA, 0, 1, b""))].concat()),
        ("settings", many(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]))),
        ("ping", many(&frame(PING, 0, 0, &[0; 8]))),
        ("window by crumbs", [asked(1), many(&crumb)].concat()),
    ]
}
