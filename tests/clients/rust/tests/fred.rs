//! fred: raw commands (it has no methods for vector sets), transactions, scans and reconnection, with RESP2 and RESP3.
//! Its RESP3 handshake begins with `HELLO 3` as an inline command.

mod common;

use std::collections::HashMap;
use std::future::Future;

use common::{
    BETWEEN, BINARY_NAME, HOST, PAUSE, RIGHT_ANGLE, TOLERANCE, WAIT_MAX, X, Y, assert_close, fp32,
    locked_port, new_key, password, port,
};
use fred::bytes::Bytes;
use fred::cmd;
use fred::error::ErrorKind;
use fred::prelude::*;
use fred::types::client::ClientKillFilter;
use fred::types::{InfoKind, RespVersion, Value};
use futures_util::TryStreamExt;

both_protocols! { RespVersion:
    hello_and_ping add_and_search read_and_change binary errors transactions pipelines scan keys passwords reconnects
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(WAIT_MAX, work).await.expect("it hangs") })
}

async fn try_connect(
    version: RespVersion,
    port: u16,
    user: Option<&str>,
    password: Option<&str>,
) -> Result<Client, Error> {
    let config = Config {
        version,
        server: ServerConfig::new_centralized(HOST, port),
        username: user.map(str::to_owned),
        password: password.map(str::to_owned),
        ..Config::default()
    };
    let pause_ms = PAUSE.as_millis().try_into().unwrap();
    let client =
        Builder::from_config(config).set_policy(ReconnectPolicy::new_constant(0, pause_ms)).build()?;
    client.init().await?;
    Ok(client)
}

async fn connect(version: RespVersion) -> Client {
    try_connect(version, port(), None, None).await.unwrap()
}

/// Sends a command of words.
async fn send<R: FromValue>(client: &Client, words: &[&str]) -> Result<R, Error> {
    client.custom(cmd!(words[0]), words[1..].to_vec()).await
}

/// A command whose vector is the f32 blob.
async fn send_vector<R: FromValue>(
    client: &Client,
    name: &'static str,
    key: &str,
    vector: &[f32],
    rest: &[&[u8]],
) -> Result<R, Error> {
    let bytes = |part: &[u8]| Value::Bytes(Bytes::copy_from_slice(part));
    let mut arguments = vec![bytes(key.as_bytes()), bytes(b"FP32"), bytes(&fp32(vector))];
    arguments.extend(rest.iter().map(|part| bytes(part)));
    client.custom(cmd!(name), arguments).await
}

/// A key with a = X and c = BETWEEN with attributes, b = Y without.
async fn filled(client: &Client) -> String {
    let key = new_key();
    let rows: [(&[f32], &[&[u8]]); 3] = [
        (&X, &[b"a", b"SETATTR", b"{\"n\":1}"]),
        (&Y, &[b"b"]),
        (&BETWEEN, &[b"c", b"SETATTR", b"{\"n\":2}"]),
    ];
    for (vector, rest) in rows {
        assert!(send_vector::<bool>(client, "VADD", &key, vector, rest).await.unwrap());
    }
    key
}

fn hello_and_ping(version: RespVersion) {
    block_on(async {
        let client = connect(version.clone()).await;
        assert_eq!(client.ping::<String>(None).await.unwrap(), "PONG");
        assert_eq!(client.protocol_version(), version);
        let info: String = client.info(None).await.unwrap();
        assert!(info.contains("loading:0") && info.contains("redis_version:"));
        let server: String = client.info(Some(InfoKind::Server)).await.unwrap();
        assert!(server.contains("redis_version:") && !server.contains("loading:"));
        let (): () = client.client_setname("suite").await.unwrap();
        assert_eq!(client.client_getname::<String>().await.unwrap(), "suite");
        let resp = if version == RespVersion::RESP3 { "resp=3" } else { "resp=2" };
        let about: String = client.client_info().await.unwrap();
        assert!(about.contains(resp) && about.contains("name=suite"), "{about}");
        client.quit().await.unwrap();
    });
}

fn add_and_search(version: RespVersion) {
    block_on(async {
        let client = connect(version.clone()).await;
        let key = filled(&client).await;
        let again: Value = send_vector(&client, "VADD", &key, &X, &[b"a"]).await.unwrap();
        let no = if version == RespVersion::RESP3 { Value::Boolean(false) } else { Value::Integer(0) };
        assert_eq!(again, no);
        let names: Vec<String> = send_vector(&client, "VSIM", &key, &X, &[]).await.unwrap();
        assert_eq!(names, ["a", "c", "b"]);
        let names: Vec<String> =
            send(&client, &["VSIM", &key, "VALUES", "3", "0", "1", "0", "COUNT", "1"]).await.unwrap();
        assert_eq!(names, ["b"]);
        let scores: HashMap<String, f64> =
            send_vector(&client, "VSIM", &key, &X, &[b"WITHSCORES"]).await.unwrap();
        assert_close(&[scores["a"], scores["b"]], &[1.0, RIGHT_ANGLE], TOLERANCE);
        let names: Vec<String> =
            send(&client, &["VSIM", &key, "ELE", "a", "FILTER", ".n > 1"]).await.unwrap();
        assert_eq!(names, ["c"]);
        let missing: Vec<String> = send_vector(&client, "VSIM", &new_key(), &X, &[]).await.unwrap();
        assert!(missing.is_empty());
    });
}

fn read_and_change(version: RespVersion) {
    block_on(async {
        let client = connect(version).await;
        let key = filled(&client).await;
        assert_eq!(send::<u64>(&client, &["VCARD", &key]).await.unwrap(), 3);
        assert_eq!(send::<u64>(&client, &["VDIM", &key]).await.unwrap(), 3);
        let vector: Vec<f64> = send(&client, &["VEMB", &key, "c"]).await.unwrap();
        assert_close(&vector, &[2.0, 1.0, 0.0], TOLERANCE);
        assert_eq!(send::<String>(&client, &["VGETATTR", &key, "a"]).await.unwrap(), r#"{"n":1}"#);
        assert_eq!(send::<Option<String>>(&client, &["VGETATTR", &key, "b"]).await.unwrap(), None);
        assert!(send::<bool>(&client, &["VSETATTR", &key, "b", "{}"]).await.unwrap());
        let info: HashMap<String, Value> = send(&client, &["VINFO", &key]).await.unwrap();
        assert_eq!(info["quant-type"].as_str().as_deref(), Some("int8"));
        assert_eq!((&info["size"], &info["vector-dim"]), (&Value::Integer(3), &Value::Integer(3)));
        assert!(send::<bool>(&client, &["VREM", &key, "b"]).await.unwrap());
        assert!(!send::<bool>(&client, &["VISMEMBER", &key, "b"]).await.unwrap());
        assert_eq!(client.del::<u64, _>(&key).await.unwrap(), 1);
        assert_eq!(send::<Value>(&client, &["VINFO", &key]).await.unwrap(), Value::Null);
    });
}

fn binary(version: RespVersion) {
    block_on(async {
        let client = connect(version).await;
        let (key, vector) = (new_key(), [0.5, -1.0, 2.0]);
        let added: bool =
            send_vector(&client, "VADD", &key, &vector, &[&BINARY_NAME, b"NOQUANT"]).await.unwrap();
        assert!(added);
        let names: Vec<Bytes> = send_vector(&client, "VSIM", &key, &vector, &[]).await.unwrap();
        assert_eq!(names, [&BINARY_NAME[..]]);
    });
}

fn errors(version: RespVersion) {
    block_on(async {
        let client = connect(version).await;
        let key = filled(&client).await;
        let refused: [(&[&str], &str); 5] = [
            (
                &["VADD", &key, "VALUES", "2", "1", "0", "d"],
                "ERR Vector dimension mismatch - got 2 but set has 3",
            ),
            (&["VADD", &key, "FP32", "odd", "d"], "ERR invalid vector specification"),
            (&["VADD", &key], "ERR wrong number of arguments for 'VADD' command"),
            (&["VSIM", &key, "ELE", "none"], "ERR element not found in set"),
            (&["NOSUCH", "a"], "ERR unknown command 'NOSUCH', with args beginning with: 'a' "),
        ];
        for (words, message) in refused {
            let error = send::<Value>(&client, words).await.unwrap_err();
            assert_eq!(error.details(), message);
        }
        assert_eq!(client.ping::<String>(None).await.unwrap(), "PONG");
    });
}

fn transactions(version: RespVersion) {
    block_on(async {
        let client = connect(version.clone()).await;
        let key = filled(&client).await;
        let body = client.multi();
        let (): () = body.custom(cmd!("VREM"), vec![key.as_str(), "a"]).await.unwrap();
        let (): () = body.custom(cmd!("VCARD"), vec![key.as_str()]).await.unwrap();
        let (removed, card): (bool, u64) = body.exec(true).await.unwrap();
        assert_eq!((removed, card), (true, 2));

        let other = connect(version).await;
        let (): () = client.watch(&key).await.unwrap();
        assert!(send::<bool>(&other, &["VREM", &key, "b"]).await.unwrap());
        let body = client.multi();
        let (): () = body.custom(cmd!("VREM"), vec![key.as_str(), "c"]).await.unwrap();
        assert_eq!(body.exec::<Value>(true).await.unwrap(), Value::Null);
        assert_eq!(send::<u64>(&client, &["VCARD", &key]).await.unwrap(), 1);
    });
}

fn pipelines(version: RespVersion) {
    block_on(async {
        let client = connect(version).await;
        let key = new_key();
        let pipeline = client.pipeline();
        for row in 0..1000 {
            let words = vec![
                key.clone(),
                "VALUES".into(),
                "2".into(),
                "1".into(),
                row.to_string(),
                format!("e{row}"),
            ];
            let (): () = pipeline.custom(cmd!("VADD"), words).await.unwrap();
        }
        let added: Vec<bool> = pipeline.all().await.unwrap();
        assert!(added.len() == 1000 && added.iter().all(|new| *new));
        // The client sends what many tasks ask for in one write.
        let question = ["VSIM", key.as_str(), "ELE", "e0", "COUNT", "1"];
        let asking = (0..200).map(|_| send::<Vec<String>>(&client, &question));
        assert!(
            futures_util::future::join_all(asking).await.into_iter().all(|names| names.unwrap() == ["e0"])
        );
    });
}

fn scan(version: RespVersion) {
    block_on(async {
        let client = connect(version).await;
        let prefix = new_key();
        let mut expected: Vec<String> = (0..50).map(|n| format!("{prefix}:{n}")).collect();
        for key in &expected {
            assert!(send_vector::<bool>(&client, "VADD", key, &X, &[b"a"]).await.unwrap());
        }
        let keys: Vec<fred::types::Key> =
            client.scan_buffered(format!("{prefix}:*"), Some(7), None).try_collect().await.unwrap();
        let mut found: Vec<String> = keys.into_iter().map(|key| key.into_string().unwrap()).collect();
        found.sort();
        found.dedup();
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(client.unlink::<usize, _>(expected.clone()).await.unwrap(), expected.len());
    });
}

fn keys(version: RespVersion) {
    block_on(async {
        let client = connect(version).await;
        let key = filled(&client).await;
        assert_eq!(client.exists::<u64, _>(&key).await.unwrap(), 1);
        assert_eq!(client.r#type::<String, _>(&key).await.unwrap(), "vectorset");
        assert_eq!(client.ttl::<i64, _>(&key).await.unwrap(), -1);
        assert!(client.expire::<bool, _>(&key, 100, None).await.unwrap());
        assert!(client.ttl::<i64, _>(&key).await.unwrap() > 90);
        assert!(client.persist::<bool, _>(&key).await.unwrap());
        let renamed = new_key();
        let (): () = client.rename(&key, &renamed).await.unwrap();
        assert_eq!(client.exists::<u64, _>(vec![key, renamed]).await.unwrap(), 1);
    });
}

fn passwords(version: RespVersion) {
    block_on(async {
        let password = password();
        for user in [None, Some("default")] {
            let client = try_connect(version.clone(), locked_port(), user, Some(&password)).await.unwrap();
            assert_eq!(client.ping::<String>(None).await.unwrap(), "PONG");
        }
        for wrong in [Some("wrong"), None] {
            let refused = try_connect(version.clone(), locked_port(), None, wrong).await.err().unwrap();
            assert_eq!(refused.kind(), &ErrorKind::Auth, "{refused}");
        }
    });
}

/// The client connects again after CLIENT KILL, in the same protocol version.
fn reconnects(version: RespVersion) {
    block_on(async {
        let client = connect(version.clone()).await;
        let key = filled(&client).await;
        let id: u64 = client.client_id().await.unwrap();
        let mut reconnected = client.reconnect_rx();
        let killer = connect(version.clone()).await;
        let killed: u64 = killer.client_kill(vec![ClientKillFilter::ID(id.to_string())]).await.unwrap();
        assert_eq!(killed, 1);
        reconnected.recv().await.unwrap();
        assert_ne!(client.client_id::<u64>().await.unwrap(), id);
        let is_member: Value = send(&client, &["VISMEMBER", &key, "a"]).await.unwrap();
        let yes = if version == RespVersion::RESP3 { Value::Boolean(true) } else { Value::Integer(1) };
        assert_eq!(is_member, yes);
    });
}
