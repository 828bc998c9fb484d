//! Decides what is believed of a request's way here, and says it to the upstream.
//!
//! Nobody is believed but a trusted proxy, and of that one family of fields: `X-Forwarded-*` where
//! it sends any, else `Forwarded` (RFC 7239), because a proxy that writes the one lets what its
//! clients write in the other pass. Both are made anew from what was understood, so nothing that
//! was not understood goes on, and an upstream reads the same in either.
//!
//! Pure: header maps and addresses in, a decision out.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Request};

use super::forwarded::{Element, elements};
use super::target::{self, Refusal};
use crate::config::networks::TrustedProxies;

const X_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// Nodes that are passed on at most, the nearest ones: the fields grow with each hop, and an
/// upstream that refuses them seems to refuse the resource.
const MAX_NODES: usize = 32;

/// The way of a request to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// From the farthest that is known to the peer of this connection.
    nodes: Vec<IpAddr>,
    /// Which of them is the client: the nearest one that is no trusted proxy.
    client: usize,
    /// Whether the client asked within TLS, if that is not as it came here.
    secure: Option<bool>,
    /// The host that the client named, if that is not `Host`.
    host: Option<HeaderValue>,
}

/// What a proxy says of the one that asked it.
#[derive(Default)]
struct Hop {
    node: Option<IpAddr>,
    host: Option<HeaderValue>,
    secure: Option<bool>,
}

impl Forwarding {
    /// That of a request that its client sent here itself.
    pub(super) fn direct(peer: IpAddr) -> Self {
        Self { nodes: vec![peer.to_canonical()], client: 0, secure: None, host: None }
    }

    /// What a trusted proxy says of it; `None` of any other peer.
    pub(crate) fn believed(
        headers: &HeaderMap,
        peer: IpAddr,
        trusted: &TrustedProxies,
    ) -> Option<Self> {
        if !trusted.contains(peer) {
            return None;
        }
        let is_usual = [X_FOR, X_HOST, X_PROTO].iter().any(|name| headers.contains_key(name));
        let hops = if is_usual { of_x_forwarded(headers) } else { of_forwarded(headers) };
        let mut way = Self::direct(peer);
        // Whether the one who says it is a proxy that is trusted.
        let mut is_believed = true;
        for hop in hops.into_iter().take(MAX_NODES - 1) {
            if is_believed {
                (way.secure, way.host) = (hop.secure, hop.host);
            }
            let Some(node) = hop.node else { break };
            way.nodes.push(node);
            if is_believed {
                way.client = way.nodes.len() - 1;
                is_believed = trusted.contains(node);
            }
        }
        if is_usual {
            // It has one for the whole way, and the nearest proxy answers for it.
            way.host = single(headers, &X_HOST).and_then(|host| authority(host.as_bytes()));
            way.secure = single(headers, &X_PROTO).and_then(|proto| is_secure(proto.as_bytes()));
        }
        let own = headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
        way.host = way.host.filter(|host| !host.as_bytes().eq_ignore_ascii_case(own));
        way.nodes.reverse();
        way.client = way.nodes.len() - 1 - way.client;
        Some(way)
    }

    /// Who asks.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.nodes.get(self.client).copied()
    }

    /// Makes what the upstream will be told a part of what is asked for: the response cache keeps
    /// answers to other schemes and hosts apart.
    pub(crate) fn apply<B>(self, request: &mut Request<B>) -> Result<(), Refusal> {
        if let Some(secure) = self.secure {
            target::set_scheme(request, secure)?;
        }
        if let Some(host) = &self.host {
            request.headers_mut().insert(X_HOST, host.clone());
        }
        request.extensions_mut().insert(self);
        Ok(())
    }
}

/// Says the way of a request in both families, and whether its client asked within TLS.
pub(super) fn say(headers: &mut HeaderMap, way: Option<&Forwarding>, secure: bool) {
    let proto = if secure { "https" } else { "http" };
    let host = way.and_then(|way| way.host.clone()).or_else(|| headers.get(HOST).cloned());
    let mut asked = String::new();
    if let Some(host) = host {
        if let Ok(host) = host.to_str() {
            asked = format!("host=\"{host}\";");
        }
        headers.insert(X_HOST, host);
    }
    asked.push_str("proto=");
    asked.push_str(proto);
    insert(headers, X_PROTO, proto);
    let Some(way) = way else {
        insert(headers, FORWARDED, &asked);
        return;
    };
    let (mut plain, mut elements) = (Vec::new(), Vec::new());
    for (at, node) in way.nodes.iter().enumerate() {
        plain.push(node.to_string());
        // RFC 7239 §6: IPv6 in brackets and quotes.
        let said = if node.is_ipv6() { format!("for=\"[{node}]\"") } else { format!("for={node}") };
        elements.push(if at == way.client { format!("{said};{asked}") } else { said });
    }
    insert(headers, X_FOR, &plain.join(", "));
    insert(headers, FORWARDED, &elements.join(", "));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // The values are made of addresses and a host that was checked: always valid.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The nearest first, up to one that is no address: who is behind that, nobody knows.
fn of_x_forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let lines = headers.get_all(X_FOR).iter().rev();
    let members = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let named = members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    let nodes = named.map_while(|member| node(std::str::from_utf8(member).ok()?));
    nodes.map(|node| Hop { node: Some(node), ..Hop::default() }).collect()
}

/// The nearest first, up to a line that is not of the form.
fn of_forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let lines = headers.get_all(FORWARDED).iter().rev();
    let understood = lines.map_while(|line| elements(line.as_bytes()));
    let hop = |element: Element| Hop {
        node: element.node.and_then(|text| node(&text)),
        host: element.host.and_then(|host| authority(host.as_bytes())),
        secure: element.proto.and_then(|proto| is_secure(proto.as_bytes())),
    };
    understood.flat_map(|line| line.into_iter().rev().map(hop)).collect()
}

/// An address, in brackets or not, with a port or not; not what hides one (`unknown`, `_name`).
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// The value of a field that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn authority(host: &[u8]) -> Option<HeaderValue> {
    target::checked(host).ok()?;
    HeaderValue::from_bytes(host).ok()
}

fn is_secure(proto: &[u8]) -> Option<bool> {
    match proto.to_ascii_lowercase().as_slice() {
        // Some say so of a WebSocket.
        b"https" | b"wss" => Some(true),
        b"http" | b"ws" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
