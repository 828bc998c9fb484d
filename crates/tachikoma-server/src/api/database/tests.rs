//! The rules of the database layer on real files, with several processes' views of one file.

use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::api::{
    model::{MissionStatus, Session},
    revision::{Preconditions, Refused},
    timestamp::Timestamp,
};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn url(folder: &TempDir) -> String {
    format!("sqlite://{}", folder.path().join("api.db").display())
}

async fn database() -> (TempDir, Database) {
    let folder = TempDir::new().unwrap();
    let database = Database::open(&url(&folder)).await.unwrap();
    (folder, database)
}

fn new_mission(title: &str) -> NewMission {
    NewMission {
        id: uuid::Uuid::new_v4(),
        title: title.to_owned(),
        description: String::new(),
        status: MissionStatus::Planned,
    }
}

fn version(version: u32) -> Preconditions {
    Preconditions::new(&http::HeaderMap::new(), Some(version))
}

#[tokio::test]
async fn several_processes_open_a_new_file_at_once_and_all_see_one_schema() {
    for _ in 0..20 {
        let folder = TempDir::new().unwrap();
        let url = url(&folder);
        let opened = join_all((0..8).map(|_| Database::open(&url))).await;
        let databases: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
        let created = databases[0].create_mission(new_mission("one"), NOW).await.unwrap();
        for database in &databases {
            assert_eq!(database.mission(created.id).await.unwrap(), Some(created.clone()));
        }
    }
}

#[tokio::test]
async fn a_file_keeps_its_rows_and_its_secret_when_it_is_opened_again() {
    let (folder, database) = database().await;
    let created = database.create_mission(new_mission("kept"), NOW).await.unwrap();
    let secret = database.secret("key", vec![1, 2, 3]).await.unwrap();
    database.close().await;

    let again = Database::open(&url(&folder)).await.unwrap();
    assert_eq!(again.mission(created.id).await.unwrap(), Some(created.clone()));
    assert_eq!(secret, [1, 2, 3]);
    assert_eq!(again.secret("key", vec![4, 5, 6]).await.unwrap(), secret);
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_and_left_alone() {
    let (folder, database) = database().await;
    sqlx::query("PRAGMA user_version = 99").execute(&database.writes).await.unwrap();
    database.close().await;
    let refused = Database::open(&url(&folder)).await.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(cause, "the database has schema version 99, this program knows up to 1");
}

#[tokio::test]
async fn only_the_url_of_a_file_is_taken() {
    let refused = ["", "api.db", "sqlite://", "sqlite::memory:", "sqlite://:memory:"];
    let more = ["sqlite://x?mode=memory", "sqlite://?cache=shared", "postgres://h/db"];
    for url in refused.into_iter().chain(more) {
        let error = Database::open(url).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{url:?}")), "{error}");
        assert!(error.contains("must be sqlite://"), "{error}");
    }
    let missing = Database::open("sqlite:///no/such/folder/api.db").await.unwrap_err();
    assert!(matches!(missing, open::OpenError::Open { .. }), "{missing}");
}

#[tokio::test]
async fn each_connection_has_the_settings_that_the_rules_rest_on() {
    let (_folder, database) = database().await;
    for pool in [&database.reads, &database.writes] {
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.unwrap();
        assert_eq!(mode, "wal");
        for (pragma, expected) in
            [("PRAGMA foreign_keys", 1), ("PRAGMA synchronous", 2), ("PRAGMA busy_timeout", 5_000)]
        {
            let actual: i64 = sqlx::query_scalar(pragma).fetch_one(pool).await.unwrap();
            assert_eq!(actual, expected, "{pragma}");
        }
    }
    let written = sqlx::query("DELETE FROM missions").execute(&database.reads).await;
    assert!(written.is_err(), "a connection for reads must not write");
}

#[tokio::test]
async fn of_many_updates_that_expect_one_version_exactly_one_wins_in_two_processes() {
    let (folder, first) = database().await;
    let second = Database::open(&url(&folder)).await.unwrap();
    let id = first.create_mission(new_mission("race"), NOW).await.unwrap().id;
    for expected in 1..=20 {
        let preconditions = version(expected);
        let attempts = (0..8).map(|n| {
            let database = if n % 2 == 0 { &first } else { &second };
            let change = MissionChange { title: Some(format!("by {n}")), ..Default::default() };
            database.update_mission(id, change, &preconditions, NOW)
        });
        let results = join_all(attempts).await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7), "version {expected}");
        for lost in lost {
            let stale = Refused::Version { expected, current: Some(expected + 1) };
            assert!(matches!(lost, Err(WriteError::Refused(r)) if r == stale), "{lost:?}");
        }
    }
    assert_eq!(first.mission(id).await.unwrap().unwrap().version, 21);
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_time_never_steps_back() {
    let (_folder, database) = database().await;
    let before = database.create_mission(new_mission("first"), NOW).await.unwrap();
    let change = MissionChange { status: Some(MissionStatus::Active), ..Default::default() };
    let earlier = Timestamp::from_millis(NOW.millis() - 5_000);
    let after = database.update_mission(before.id, change, &version(1), earlier).await.unwrap();
    assert_eq!((after.version, after.status), (2, MissionStatus::Active));
    assert_eq!((&after.title, after.updated_at), (&before.title, NOW));
    assert_eq!(database.mission(before.id).await.unwrap(), Some(after));
}

#[tokio::test]
async fn pages_hold_each_mission_once_newest_first() {
    let (_folder, database) = database().await;
    let mut created = Vec::new();
    for n in 0..45 {
        created.push(
            database.create_mission(new_mission(&format!("mission {n}")), NOW).await.unwrap(),
        );
    }
    created.reverse();
    let mut seen = Vec::new();
    for page in 1..=3 {
        let page = database.missions(page, 20).await.unwrap();
        assert_eq!(page.total, 45);
        seen.extend(page.items);
    }
    assert_eq!(seen, created);
    let beyond = database.missions(u32::MAX, 100).await.unwrap();
    assert_eq!((beyond.items.len(), beyond.total), (0, 45));
}

#[tokio::test]
async fn a_mission_takes_its_specs_with_it() {
    let (_folder, database) = database().await;
    let id = database.create_mission(new_mission("goes"), NOW).await.unwrap().id;
    let change = SpecChange { title: "t".into(), content: "c".into() };
    let none = Preconditions::default();
    let first = database.put_spec(id, "a", change.clone(), &none, NOW).await.unwrap();
    let second = database.put_spec(id, "a", change.clone(), &version(1), NOW).await.unwrap();
    assert_eq!((first.created, second.created, second.spec.version), (true, false, 2));
    assert_eq!(database.specs(id).await.unwrap().unwrap().total, 1);

    database.delete_mission(id, &version(1)).await.unwrap();
    assert_eq!(database.spec(id, "a").await.unwrap(), None);
    assert_eq!(database.specs(id).await.unwrap(), None);
    let gone = database.put_spec(id, "a", change, &none, NOW).await.unwrap_err();
    assert!(matches!(gone, WriteError::NotFound), "{gone}");
    let gone = database.delete_mission(id, &none).await.unwrap_err();
    assert!(matches!(gone, WriteError::NotFound), "{gone}");
}

#[tokio::test]
async fn an_email_address_has_one_user() {
    let (_folder, database) = database().await;
    let new = |name: &str| NewUser {
        id: uuid::Uuid::new_v4(),
        name: name.to_owned(),
        email: "a@example.org".to_owned(),
        password_hash: "hash".to_owned(),
    };
    let user = database.create_user(new("first"), NOW).await.unwrap();
    let taken = database.create_user(new("second"), NOW).await.unwrap_err();
    assert!(matches!(taken, WriteError::Taken), "{taken}");
    let account = database.account(user.id).await.unwrap().unwrap();
    assert_eq!((account.user, account.email.as_str()), (user, "a@example.org"));
}

#[tokio::test]
async fn a_login_is_noted_and_sweeps_sessions_past_their_end() {
    let (_folder, database) = database().await;
    let id = uuid::Uuid::new_v4();
    let new = NewUser { id, name: "n".into(), email: "e@x".into(), password_hash: "h".into() };
    database.create_user(new, NOW).await.unwrap();
    let session = |at: Timestamp| Session {
        user_id: id,
        created_at: at,
        expires_at: at.plus(Duration::from_secs(60)),
    };
    for n in 0_u8..3 {
        database.begin_session(&[n], &session(NOW)).await.unwrap();
    }
    let later = NOW.plus(Duration::from_secs(60));
    database.begin_session(&[9], &session(later)).await.unwrap();
    assert_eq!(database.session_count().await.unwrap(), 1);
    assert_eq!(database.session(&[9]).await.unwrap(), Some(session(later)));
    assert_eq!(database.account(id).await.unwrap().unwrap().user.last_login_at, Some(later));

    database.end_session(&[9]).await.unwrap();
    assert_eq!(database.session(&[9]).await.unwrap(), None);
    assert!(matches!(database.end_session(&[9]).await, Err(WriteError::NotFound)));
    let nobody = Session { user_id: uuid::Uuid::new_v4(), ..session(later) };
    assert!(matches!(database.begin_session(&[1], &nobody).await, Err(WriteError::NotFound)));
}

#[tokio::test]
async fn a_lock_that_stays_taken_is_busy_and_not_a_fault() {
    let (folder, holder) = database().await;
    let waiter = Database::open(&url(&folder)).await.unwrap();
    let held = holder.write().await.unwrap();
    // The caller's deadline, shorter than SQLite's own: the wait must not block the runtime.
    let wait = waiter.create_mission(new_mission("late"), NOW);
    assert!(tokio::time::timeout(Duration::from_millis(100), wait).await.is_err());
    assert_eq!(waiter.missions(1, 20).await.unwrap().total, 0, "reads go on beside a writer");
    held.rollback().await.unwrap();
    waiter.create_mission(new_mission("after"), NOW).await.unwrap();

    let busy: DatabaseError = sqlx::Error::PoolTimedOut.into();
    assert!(matches!(busy, DatabaseError::Busy(_)));
}
