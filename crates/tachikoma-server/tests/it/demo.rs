//! The demonstration does what it says it does.

use crate::support::run;

#[test]
fn the_lines_that_the_demo_prints_show_a_miss_and_then_a_hit() {
    let ended = run(&["demo", "--check"], &[("TACHIKOMA_LISTEN", "not looked at")]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let kinds: Vec<_> = ended.out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(kinds, ["miss", "hit", "miss", "hit", "stats", "stats"], "{}", ended.out);
    assert!(ended.out.contains("cache-status: tachikoma"), "{}", ended.out);
}
