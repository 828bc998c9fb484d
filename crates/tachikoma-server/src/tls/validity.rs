//! Reads when a certificate begins and ceases to be valid (RFC 5280 §4.1.2.5).
//!
//! Pure, and only as much of DER as leads there: clients check the rest, and the certificate is
//! the operator's own.

use std::time::SystemTime;

/// Says why a certificate is not valid at `now`.
pub(super) fn check(der: &[u8], now: SystemTime) -> Result<(), String> {
    let Some((from, until)) = validity(der) else {
        return Err("is no X.509 certificate".to_owned());
    };
    let at = humantime::format_rfc3339_seconds;
    if now < from {
        return Err(format!("is valid only from {} on", at(from)));
    }
    if now > until {
        return Err(format!("expired on {}", at(until)));
    }
    Ok(())
}

fn validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let inside = |(tag, content, rest)| (tag == SEQUENCE).then_some((content, rest));
    let (certificate, _) = inside(element(der)?)?;
    let (mut fields, _) = inside(element(certificate)?)?;
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    // The serial number, the signature's algorithm and the issuer come first.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (times, _) = inside(element(fields)?)?;
    let (tag, from, rest) = element(times)?;
    let from = time(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some((from, time(tag, until)?))
}

/// Takes one element off: its tag, its content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, mut der) = der.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (bytes, rest) = der.split_at_checked(count)?;
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        der = rest;
    }
    let (content, rest) = der.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `UTCTime` and `GeneralizedTime`, in the one form that certificates may have.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match (tag, text.len()) {
        (0x17, 12) => {
            let century = if text.get(..2)? < "50" { "20" } else { "19" };
            format!("{century}{text}")
        }
        (0x18, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |range: std::ops::Range<usize>| text.get(range);
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(8..10)?, part(10..12)?, part(12..14)?);
    humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn der() -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2024, 3, 1);
        params.not_after = rcgen::date_time_ymd(2060, 1, 2);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    #[track_caller]
    fn check_at(year: &str, expected: Result<(), &str>) {
        let now = humantime::parse_rfc3339(&format!("{year}T00:00:00Z")).expect("a time");
        assert_eq!(check(&der(), now), expected.map_err(str::to_owned), "{year}");
    }

    #[test]
    fn a_certificate_is_valid_between_its_two_times() {
        check_at("2024-02-29", Err("is valid only from 2024-03-01T00:00:00Z on"));
        check_at("2024-03-01", Ok(()));
        check_at("2059-12-31", Ok(()));
        check_at("2060-01-03", Err("expired on 2060-01-02T00:00:00Z"));
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none_and_never_a_panic() {
        let whole = der();
        for length in 0..whole.len() {
            let _ = check(&whole[..length], UNIX_EPOCH);
        }
        for at in 0..whole.len().min(200) {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            let _ = check(&changed, UNIX_EPOCH + Duration::from_secs(1));
        }
        assert_eq!(check(b"", UNIX_EPOCH), Err("is no X.509 certificate".to_owned()));
        assert_eq!(
            check(b"\x30\x03\x30\x01\x00", UNIX_EPOCH),
            Err("is no X.509 certificate".to_owned())
        );
    }
}
