//! A server that logs everybody in, for answers that a real server cannot be brought to give.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

type Answer = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// Listens as long as the test process lives; `answer` has the name of each command that is not
/// about the connection.
pub(crate) fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> u16 {
    let answer: Arc<Answer> = Arc::new(answer);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // It ends with its connection.
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(stream, &*answer));
        }
    });
    port
}

/// The same for all commands.
pub(crate) fn start_with(answer: impl Into<Vec<u8>>) -> u16 {
    let answer = answer.into();
    start(move |_| answer.clone())
}

fn serve(stream: TcpStream, answer: &Answer) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let answer = match command(&mut reader)?.as_str() {
            "HELLO" => b"%1\r\n+server\r\n+redis\r\n".to_vec(),
            "CLIENT" => b":1\r\n".to_vec(),
            "TIME" => b"*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n".to_vec(),
            "INFO" => {
                let text = "run_id:stub\r\nrole:master\r\nloading:0\r\n";
                format!("${}\r\n{text}\r\n", text.len()).into_bytes()
            }
            other => answer(other),
        };
        reader.get_mut().write_all(&answer)?;
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
