use super::*;

const READ: Read = Read {
    class: Class::Keys,
    id: 0,
    begin: 1,
    end: 2,
    node: 0,
    version: 0,
    came: Came::Loaded,
    promise: Promise::Within,
};

#[track_caller]
fn check(class: Class, ids: &[u16], cache: &str, body: &str) -> Result<Vec<Read>, String> {
    let mut reads = Vec::new();
    let (cache, body) = (cache.to_owned(), body.to_owned());
    let asked = Asked { class, ids: ids.to_vec() };
    asked.note(&mut reads, READ, Ok(Answer { status: 200, cache, body }))?;
    Ok(reads)
}

#[test]
fn each_line_is_the_answer_for_one_key() {
    let body = "3 7 hit fresh\n5 0 load fresh\n3 8 hit within\n4 1 stale stale\n";
    let reads = check(Class::Keys, &[3, 5, 3, 4], "", body).unwrap();
    let read = |id, version, came, promise| Read { id, version, came, promise, ..READ };
    let expected = [
        read(3, 7, Came::Redis, Promise::AtOnce),
        read(5, 0, Came::Loaded, Promise::AtOnce),
        read(3, 8, Came::Memory, Promise::Within),
        read(4, 1, Came::Stale, Promise::None),
    ];
    assert_eq!(reads, expected);
}

#[test]
fn an_answer_that_is_not_all_that_was_asked_for_is_a_failure() {
    for body in [
        "",
        "3 7 hit fresh\n",
        "5 7 hit fresh\n3 7 hit fresh\n",
        "3 7 hit fresh\n5 7 hit fresh\n5 7 hit fresh\n",
        "3 7 hit\n5 7 hit fresh\n",
        "3 -1 hit fresh\n5 7 hit fresh\n",
        "3 7 hit stale\n5 7 hit fresh\n",
        "3 7 hit fresh\n5 7 hit soon\n",
    ] {
        assert!(check(Class::Tags, &[3, 5], "", body).is_err(), "{body:?}");
    }
    assert!(check(Class::Api, &[1], "", r#"{"id":1}"#).is_err());
    assert!(check(Class::Pages, &[1], "", "an error\n").is_err());
}

#[test]
fn the_fields_of_an_answer_say_where_it_came_from() {
    for (class, fields, body, came) in [
        (Class::Api, "cache;desc=hit", r#"{"version":4}"#, Came::Cache),
        (Class::Api, "cache;desc=miss", r#"{"version":4}"#, Came::Loaded),
        (Class::Api, "cache;desc=stale", r#"{"version":4}"#, Came::Stale),
        (Class::Pages, "tachikoma; hit; ttl=9", "4\n", Came::Cache),
        (Class::Pages, "tachikoma; fwd=uri-miss; stored", "4\n", Came::Loaded),
    ] {
        let reads = check(class, &[1], fields, body).unwrap();
        let promise = if came == Came::Stale { Promise::None } else { Promise::Within };
        assert_eq!(reads, [Read { id: 1, version: 4, came, promise, ..READ }], "{fields}");
    }
}

#[test]
fn every_key_is_written_some_more_often_than_others() {
    let mut times = [0; 20];
    for _ in 0..20_000 {
        times[usize::from(written(20))] += 1;
    }
    assert!(times.iter().all(|times| *times > 100), "{times:?}");
    assert!(times[0] > 4 * times[19], "{times:?}");
}
