//! Finds the known word nearest to a misspelt one.

/// Returns the candidate that differs least from `word`, if it is near enough to be a slip.
///
/// Near enough: at most one edit per three letters, and at most three. An edit inserts, removes
/// or replaces one letter (Levenshtein distance); `-` and `_` count as the same letter.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A key is short; whoever writes a 10 MiB one gets no suggestion instead of a long wait.
    if word.len() > 64 {
        return None;
    }
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(a: &str, b: &str) -> usize {
    let letter = |c: char| {
        if c == '-' { '_' } else { c.to_ascii_lowercase() }
    };
    let b: Vec<char> = b.chars().map(letter).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().map(letter).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[track_caller]
    fn check(word: &str, expected: Option<&str>) {
        assert_eq!(nearest(word, ["listen", "upstream", "access_log"]), expected, "{word:?}");
    }

    #[test]
    fn a_slip_finds_its_word_and_another_word_does_not() {
        check("listn", Some("listen"));
        check("Listen", Some("listen"));
        check("up_stream", Some("upstream"));
        check("access-log", Some("access_log"));
        check("colour", None);
        check("", None);
        check(&"x".repeat(10_000_000), None);
    }
}
