//! `tachikoma stats`, `tachikoma purge` and `tachikoma explain`: a client of a running server's
//! admin listener.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::Body;
use bytes::Bytes;
use clap::{ArgGroup, Args};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::Failed;
use super::serve::runtime;
use crate::config::values::{Listen, Secret};
use crate::config::{Config, Settings};
use crate::print;

/// How long an answer may take. A pattern over a large Redis takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest answer that is read.
const MAX_ANSWER: usize = 4 << 20;

/// Where the admin listener is, and the token for it.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// Address of the server's admin listener
    #[arg(long, env = "TACHIKOMA_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: Listen,
    /// File with the admin token
    #[arg(long, env = "TACHIKOMA_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(super) struct PurgeArgs {
    /// Key of the data cache
    #[arg(group = "what")]
    key: Option<String>,
    /// Every key of the data cache that matches: * ? [a-c] [^a] \; or every stored response, if it
    /// begins with http://, https:// or, for the paths of every host, /
    #[arg(long, group = "what")]
    pattern: Option<String>,
    /// Every value and response with this tag
    #[arg(long, group = "what")]
    tag: Option<String>,
    /// Every stored response of this URL, like `http://host/path?query`
    #[arg(long, group = "what")]
    url: Option<String>,
    /// Every stored response whose URL begins so; or its path, if this begins with /
    #[arg(long, group = "what")]
    prefix: Option<String>,
    /// Make responses stale instead of removing them
    #[arg(long)]
    soft: bool,
    /// Only say how much it would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: Where,
}

pub(super) fn stats(at: &Where) -> Result<(), Failed> {
    let token = token(at)?;
    let answer = ask(at.admin, token.as_ref(), Method::GET, "/stats", None)?;
    print(&format!("{answer:#}\n"));
    Ok(())
}

pub(super) fn purge(args: &PurgeArgs) -> Result<(), Failed> {
    let token = token(&args.at)?;
    let named = [
        ("key", &args.key),
        ("pattern", &args.pattern),
        ("tag", &args.tag),
        ("url", &args.url),
        ("prefix", &args.prefix),
    ];
    let mut asked = json!({ "dry_run": args.dry_run, "soft": args.soft });
    for (name, value) in named {
        if let Some(value) = value {
            asked[name] = value.as_str().into();
        }
    }
    let answer = ask(args.at.admin, token.as_ref(), Method::POST, "/purge", Some(&asked))?;
    print(&format!("{}\n", summary(&answer)));
    Ok(())
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The URL, like `http://host/path?query`
    url: String,
    /// A header of the request, like `Accept-Language: de`
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Its method
    #[arg(long, short = 'X', default_value = "GET")]
    method: String,
    /// Ask the origin too, past the cache, and say what would become of its answer
    #[arg(long)]
    fetch: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Where,
}

pub(super) fn explain(args: &ExplainArgs) -> Result<(), Failed> {
    let token = token(&args.at)?;
    let mut path = format!("/explain?url={}&method={}", encoded(&args.url), encoded(&args.method));
    for header in &args.headers {
        path.push_str("&header=");
        path.push_str(&encoded(header));
    }
    if args.fetch {
        path.push_str("&fetch=true");
    }
    let mut answer = ask(args.at.admin, token.as_ref(), Method::GET, &path, None)?;
    let text = answer["text"].take();
    if args.json {
        if let Some(fields) = answer.as_object_mut() {
            fields.remove("text");
        }
        print(&format!("{answer:#}\n"));
    } else {
        print(text.as_str().unwrap_or_default());
    }
    Ok(())
}

/// A value of a query (RFC 3986 §2.3: what is not unreserved is escaped).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The token as a server reads it: from the file, else from the variable.
fn token(at: &Where) -> Result<Option<Secret>, Failed> {
    let settings = Settings {
        api: Some(true),
        admin_token_file: at.admin_token_file.clone(),
        ..Settings::default()
    };
    let config = Config::resolve(Settings::default(), settings, |name| {
        (name == "TACHIKOMA_ADMIN_TOKEN").then(|| std::env::var(name).ok()).flatten()
    })?;
    Ok(config.secrets.admin)
}

fn ask(
    admin: Listen,
    token: Option<&Secret>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let mut request = Request::builder().method(method).uri(format!("http://{admin}{path}"));
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let request = request.header(CONTENT_TYPE, "application/json").body(body)?;
    let exchange = async {
        let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.with_context(|| {
            format!("the admin listener at {admin} does not answer; is the server running?")
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        anyhow::Ok((status, body.to_bytes()))
    };
    let answered = runtime()?.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
    let (status, body): (StatusCode, Bytes) =
        answered.with_context(|| format!("{admin} did not answer in {PATIENCE:?}"))??;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        bail!("{status}: {}", answer["detail"].as_str().unwrap_or("no reason was given"));
    }
    Ok(answer)
}

fn summary(answer: &Value) -> String {
    if answer["pending"] == true {
        return "pending: the store could not be told yet; the server goes on trying".to_owned();
    }
    let verb = match (answer["dry_run"] == true, answer["soft"] == true) {
        (true, false) => "would remove",
        (false, false) => "removed",
        (true, true) => "would make stale",
        (false, true) => "made stale",
    };
    let tiers = ["memory", "redis"].map(|tier| (tier, answer["removed"][tier].as_u64()));
    let counted: Vec<_> =
        tiers.iter().filter_map(|(tier, n)| n.map(|n| format!("{n} in {tier}"))).collect();
    if counted.is_empty() {
        return "done; tags are invalidated without counting what has them".to_owned();
    }
    format!("{verb} {}", counted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &Value, expected: &str) {
        assert_eq!(summary(answer), expected);
    }

    #[test]
    fn the_answer_is_said_in_one_line() {
        let removed = json!({ "memory": 3, "redis": null });
        check(&json!({ "removed": removed, "dry_run": false }), "removed 3 in memory");
        check(&json!({ "removed": removed, "dry_run": true }), "would remove 3 in memory");
        let both = json!({ "memory": 1, "redis": 2 });
        check(&json!({ "removed": both }), "removed 1 in memory, 2 in redis");
        check(
            &json!({ "removed": { "memory": null, "redis": null } }),
            "done; tags are invalidated without counting what has them",
        );
        check(&json!({ "removed": removed, "soft": true }), "made stale 3 in memory");
        check(
            &json!({ "pending": true }),
            "pending: the store could not be told yet; the server goes on trying",
        );
    }
}
