//! Which proxies in front are believed: addresses and networks.
//!
//! Says only who they are; what they are believed is decided in `proxy::forwarding`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Serialize;

use super::text::{Refused, as_text};

/// An IP address, or a network as an address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        // An address with bits behind the prefix is as likely a mistake in the one as in the other.
        let net = net.ok().filter(|net: &IpNet| net.trunc() == *net);
        // Addresses are compared in their shortest form, so these would never match.
        let is_mapped = |net: &IpNet| net.addr().to_canonical() != net.addr();
        net.filter(|net| !is_mapped(net)).map(Self).ok_or_else(|| {
            Refused(
                "an IP address, or a network that begins where its prefix says, like 10.0.0.7, \
                 10.0.0.0/8 or 2001:db8::/32"
                    .to_owned(),
            )
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return self.0.addr().fmt(f);
        }
        self.0.fmt(f)
    }
}

as_text!(Network);

/// The proxies in front of this server that are believed. Cheap to ask, and none by default.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one is believed.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }
}

impl From<Vec<Network>> for TrustedProxies {
    fn from(networks: Vec<Network>) -> Self {
        Self(networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let actual = text.parse::<Network>().ok().map(|network| network.to_string());
        assert_eq!(actual.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn a_network_is_an_address_or_begins_where_its_prefix_says() {
        check("10.0.0.7", Some("10.0.0.7"));
        check("10.0.0.7/32", Some("10.0.0.7"));
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("::1", Some("::1"));
        check("2001:DB8::/32", Some("2001:db8::/32"));
        let bad = ["", "10", "10.0.0", "10.0.0.0/33", "10.0.0.7/8", "10.0.0.0/", "/8", "::/129"];
        let worse = ["10.0.0.0/-1", "10.0.0.0/255.0.0.0", "a.test", "10.0.0.7:80", "[::1]", "*"];
        let mapped = ["::ffff:10.0.0.7", "::ffff:10.0.0.0/104", "10.0.0.1 ", "10.0.0.1,10.0.0.2"];
        for bad in bad.into_iter().chain(worse).chain(mapped) {
            check(bad, None);
        }
    }

    #[test]
    fn an_address_is_believed_in_whichever_form_it_comes() {
        let networks = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"];
        let networks: Vec<Network> = networks.map(|text| text.parse().expect("good")).into();
        let trusted = TrustedProxies::from(networks);
        for (address, expected) in [
            ("10.255.0.1", true),
            ("::ffff:10.255.0.1", true),
            ("11.0.0.1", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(trusted.contains(address), expected, "{address}");
        }
        assert!(!TrustedProxies::default().contains(IpAddr::from([127, 0, 0, 1])));
    }
}
