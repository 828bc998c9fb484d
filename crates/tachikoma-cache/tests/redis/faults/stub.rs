//! A server that logs everybody in and gives every command the same answer: what a real server
//! cannot be brought to say to the commands of a cache.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Listens as long as the test process lives; gives this answer to everything but the login.
pub(super) fn start(answer: impl Into<Vec<u8>>) -> u16 {
    let answer: Arc<[u8]> = answer.into().into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // It ends with its connection.
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(stream, &answer));
        }
    });
    port
}

fn serve(stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let command = command(&mut reader)?;
        let known = match command.as_str() {
            "HELLO" => Some("%1\r\n+server\r\n+redis\r\n".to_owned()),
            "CLIENT" => Some(":1\r\n".to_owned()),
            "TIME" => Some("*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n".to_owned()),
            "INFO" => {
                let text = "run_id:stub\r\nrole:master\r\nloading:0\r\n";
                Some(format!("${}\r\n{text}\r\n", text.len()))
            }
            _ => None,
        };
        reader.get_mut().write_all(known.as_deref().map_or(answer, str::as_bytes))?;
    }
}

/// The name of the next command.
fn command(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let parts = number(reader)?;
    let mut name = String::new();
    for part in 0..parts {
        let mut bytes = vec![0; number(reader)? + 2];
        reader.read_exact(&mut bytes)?;
        if part == 0 {
            name = String::from_utf8_lossy(&bytes).trim_end().to_uppercase();
        }
    }
    Ok(name)
}

fn number(reader: &mut BufReader<TcpStream>) -> io::Result<usize> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.trim_start_matches(['*', '$']).trim().parse().map_err(io::Error::other)
}
