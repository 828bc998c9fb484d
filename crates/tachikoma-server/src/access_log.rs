//! Writes one line per request to standard output: the Common Log Format, or JSON.
//!
//! A line is written by a thread of its own, so that a slow reader of the log never slows a
//! request: what does not fit into the queue is dropped and counted. What clients send is escaped,
//! so that nobody forges a line or moves a terminal's cursor.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{HOST, HeaderName, REFERER, USER_AGENT};
use http::{HeaderMap, Request, Response, Version};

use crate::config::values::AccessLog as Form;

/// Lines that may wait for the writer.
const QUEUE: usize = 8192;

/// How long the writer may take for the last lines: a reader that is stuck holds nothing up.
const CLOSE: Duration = Duration::from_secs(1);

/// The access log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AccessLog(Option<Arc<Open>>);

struct Open {
    form: Form,
    queries: bool,
    lines: SyncSender<String>,
    dropped: AtomicU64,
    /// Ends when the writer has written everything.
    done: Mutex<Option<Receiver<()>>>,
}

impl AccessLog {
    /// Starts the log on standard output, with what stands behind `?` or without.
    pub(crate) fn start(form: Form, queries: bool) -> io::Result<Self> {
        Self::to(form, queries, io::stdout())
    }

    fn to(form: Form, queries: bool, output: impl Write + Send + 'static) -> io::Result<Self> {
        if form == Form::Off {
            return Ok(Self(None));
        }
        let (lines, queue) = sync_channel(QUEUE);
        let (ending, done) = sync_channel(1);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            write_lines(&queue, output);
            drop(ending);
        })?;
        let done = Mutex::new(Some(done));
        Ok(Self(Some(Arc::new(Open { form, queries, lines, dropped: AtomicU64::new(0), done }))))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn has_queries(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.queries)
    }

    /// Lines that found no room in the queue.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |open| open.dropped.load(Relaxed))
    }

    pub(crate) fn write(&self, line: &Line, bytes: u64, complete: bool, took: Duration) {
        let Some(open) = &self.0 else { return };
        let text = match open.form {
            Form::Json => line.json(bytes, complete, took),
            Form::Common | Form::Off => line.common(bytes),
        };
        if open.lines.try_send(text).is_err() {
            open.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Writes what is queued and ends the log. Lines that come later are dropped.
    pub(crate) fn close(self) {
        let Some(open) = self.0 else { return };
        let done = open.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        // An empty line is the sign to stop; when the queue is full, the reader of the log is stuck
        // and there is nothing to wait for.
        if let (Some(done), Ok(())) = (done, open.lines.try_send(String::new()))
            && done.recv_timeout(CLOSE) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!("nobody reads the access log: its last lines are lost");
        }
    }
}

fn write_lines(queue: &Receiver<String>, output: impl Write) {
    let mut output = io::BufWriter::new(output);
    while let Ok(mut line) = queue.recv() {
        loop {
            if line.is_empty() {
                let _ = output.flush();
                return;
            }
            // A closed pipe is no reason to stop serving: the lines go nowhere.
            let _ = output.write_all(line.as_bytes());
            match queue.try_recv() {
                Ok(next) => line = next,
                Err(_) => break,
            }
        }
        let _ = output.flush();
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    /// Who sent it here.
    pub(crate) peer: Option<IpAddr>,
    /// Who asked: another one, if the peer is a trusted proxy.
    pub(crate) client: Option<IpAddr>,
}

/// What is said of one request.
pub(crate) struct Line {
    at: SystemTime,
    source: Source,
    method: String,
    target: String,
    version: Version,
    host: String,
    user_agent: String,
    referer: String,
    status: u16,
    cache: String,
}

impl Line {
    pub(crate) fn of_request<B>(
        request: &Request<B>,
        source: Source,
        at: SystemTime,
        queries: bool,
    ) -> Self {
        let headers = request.headers();
        let shown = |mut url: String| {
            if !queries {
                url.truncate(url.find(['?', '#']).unwrap_or(url.len()));
            }
            url
        };
        Self {
            at,
            source,
            method: request.method().to_string(),
            target: shown(request.uri().to_string()),
            version: request.version(),
            host: match request.uri().authority() {
                Some(authority) => authority.to_string(),
                None => text(headers, &HOST),
            },
            user_agent: text(headers, &USER_AGENT),
            referer: shown(text(headers, &REFERER)),
            status: 0,
            cache: String::new(),
        }
    }

    pub(crate) fn with_response<B>(mut self, response: &Response<B>) -> Self {
        self.status = response.status().as_u16();
        self.cache = text(response.headers(), &HeaderName::from_static("cache-status"));
        self
    }

    fn common(&self, bytes: u64) -> String {
        let date = httpdate::fmt_http_date(self.at);
        // `Sun, 06 Nov 1994 08:49:37 GMT`
        let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or("-");
        let (day, month, year, time) = (part(5..7), part(8..11), part(12..16), part(17..25));
        let client = self.source.client.map_or_else(|| "-".to_owned(), |client| client.to_string());
        let size = if bytes == 0 { "-".to_owned() } else { bytes.to_string() };
        format!(
            "{client} - - [{day}/{month}/{year}:{time} +0000] \"{} {} {:?}\" {} {size}\n",
            escaped(&self.method),
            escaped(&self.target),
            self.version,
            self.status,
        )
    }

    fn json(&self, bytes: u64, complete: bool, took: Duration) -> String {
        let mut line = serde_json::json!({
            "time": rfc3339(self.at),
            "peer": self.source.peer,
            "client": self.source.client,
            "method": self.method,
            "target": self.target,
            "version": format!("{:?}", self.version),
            "host": self.host,
            "user_agent": self.user_agent,
            "referer": self.referer,
            "status": self.status,
            "bytes": bytes,
            "complete": complete,
            "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "cache": self.cache,
        })
        .to_string();
        line.push('\n');
        line
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers
        .get(name)
        .map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Everything but visible ASCII, quotes and backslashes, which become `\xNN`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn rfc3339(at: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = httpdate::fmt_http_date(at);
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or("-");
    let month = MONTHS.iter().position(|name| *name == part(8..11)).map_or(0, |at| at + 1);
    let millis = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_millis();
    format!("{}-{month:02}-{}T{}.{millis:03}Z", part(12..16), part(5..7), part(17..25))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str, agent: &str) -> Line {
        let request = Request::get(target)
            .header(HOST, "a.test")
            .header(USER_AGENT, agent)
            .body(())
            .expect("a request");
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_042);
        let response = Response::builder().header("cache-status", "tachikoma; hit");
        let response = response.body(()).expect("a response");
        let client = Some(IpAddr::from([192, 0, 2, 7]));
        let source = Source { peer: Some(IpAddr::from([10, 0, 0, 1])), client };
        Line::of_request(&request, source, at, true).with_response(&response)
    }

    #[test]
    fn the_common_form_is_that_of_ncsa() {
        assert_eq!(
            line("/a?b=1", "curl").common(23),
            "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b=1 HTTP/1.1\" 200 23\n"
        );
        assert!(line("/", "curl").common(0).ends_with("200 -\n"));
    }

    #[test]
    fn the_json_form_is_one_object_per_line() {
        let mut line = line("/a", "");
        line.user_agent = "x\" \\ \u{1b}[31m".to_owned();
        let text = line.json(5, true, Duration::from_millis(3));
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}'));
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&value["peer"], &value["client"]), (&"10.0.0.1".into(), &"192.0.2.7".into()));
        assert_eq!(value["time"], "1994-11-06T08:49:37.042Z");
        assert_eq!(value["user_agent"], "x\" \\ \u{1b}[31m");
        assert_eq!((&value["status"], &value["bytes"]), (&200.into(), &5.into()));
        assert_eq!((&value["cache"], &value["duration_ms"]), (&"tachikoma; hit".into(), &3.into()));
    }

    #[test]
    fn a_client_cannot_forge_a_line() {
        let mut line = line("/", "curl");
        line.target = "/\" 200 1\r\n\u{1b}[2Jé\\".to_owned();
        let text = line.common(1);
        assert!(text.contains(r"/\x22\x20200\x201\x0d\x0a\x1b[2J\xc3\xa9\x5c HTTP"), "{text}");
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn closing_does_not_wait_for_a_reader_that_is_stuck() {
        struct Stuck;
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                loop {
                    std::thread::park();
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = AccessLog::to(Form::Common, true, Stuck).expect("a thread");
        log.write(&line("/", "curl"), 1, true, Duration::ZERO);
        let (closed, is_closed) = sync_channel(1);
        std::thread::spawn(move || {
            log.close();
            let _ = closed.send(());
        });
        assert_eq!(is_closed.recv_timeout(Duration::from_secs(20)), Ok(()));
    }

    #[test]
    fn closing_writes_what_is_queued() {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("a sink").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let log = AccessLog::to(Form::Common, true, sink.clone()).expect("a thread");
        for _ in 0..100 {
            log.write(&line("/", "curl"), 1, true, Duration::ZERO);
        }
        log.close();
        let written = sink.0.lock().expect("a sink").clone();
        assert_eq!(String::from_utf8(written).expect("text").lines().count(), 100);
    }
}
