//! redis-rs: blocking and asynchronous connections, its vector-set methods and raw commands, with RESP2 and RESP3.

mod common;

use std::collections::HashMap;
use std::future::Future;
use std::time::Instant;

use common::{
    BETWEEN, BINARY_NAME, HOST, PAUSE, RIGHT_ANGLE, TOLERANCE, WAIT_MAX, X, Y, assert_close, fp32, from_fp32,
    locked_port, new_key, password, port,
};
use redis::aio::ConnectionManagerConfig;
use redis::vector_sets::{
    EmbeddingInput, VAddOptions, VEmbOptions, VSimOptions, VectorAddInput, VectorQuantization,
    VectorSimilaritySearchInput,
};
use redis::{
    AsyncCommands, Client, Commands, Connection, ErrorKind, FromRedisValue, InfoDict, ProtocolVersion,
    RedisResult, ScanOptions, ServerErrorKind, Value, cmd, pipe,
};

both_protocols! { ProtocolVersion:
    hello_and_ping add_and_search read_and_change sets_and_links ranges all_options binary errors transactions
    pipelines scan keys passwords asynchronous asynchronous_scan reconnects
}

fn client(protocol: ProtocolVersion) -> Client {
    client_of(protocol, port(), "")
}

/// `credentials`: nothing, `:password@` or `user:password@`.
fn client_of(protocol: ProtocolVersion, port: u16, credentials: &str) -> Client {
    let version = if protocol == ProtocolVersion::RESP3 { "?protocol=resp3" } else { "" };
    Client::open(format!("redis://{credentials}{HOST}:{port}/{version}")).unwrap()
}

fn connect(protocol: ProtocolVersion) -> Connection {
    client(protocol).get_connection().unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(WAIT_MAX, work).await.expect("it hangs") })
}

fn element(name: &str) -> VectorSimilaritySearchInput<'_> {
    VectorSimilaritySearchInput::Element(name)
}

/// A key with a = X and c = BETWEEN with attributes, b = Y without.
fn filled(connection: &mut Connection) -> String {
    let key = new_key();
    let attributes =
        |n: u32| VAddOptions::default().set_attributes(HashMap::from([("n", n)]).into_iter().collect());
    assert!(
        connection.vadd_options::<_, _, bool>(&key, VectorAddInput::Fp32(&X), "a", &attributes(1)).unwrap()
    );
    assert!(
        connection
            .vadd::<_, _, bool>(&key, VectorAddInput::Values(EmbeddingInput::Float32(&Y)), "b")
            .unwrap()
    );
    let text = VectorAddInput::Values(EmbeddingInput::String(&["2", "1e0", "0"]));
    assert!(connection.vadd_options::<_, _, bool>(&key, text, "c", &attributes(2)).unwrap());
    key
}

fn hello_and_ping(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    assert_eq!(connection.ping::<String>().unwrap(), "PONG");
    let version = if protocol == ProtocolVersion::RESP3 { 3 } else { 2 };
    let hello: HashMap<String, Value> = cmd("HELLO").arg(version).query(&mut connection).unwrap();
    assert_eq!(hello["proto"], Value::Int(version));
    assert_eq!(hello["server"], Value::BulkString(b"redis".to_vec()));
    let id: i64 = connection.client_id().unwrap();
    assert_eq!(hello["id"], Value::Int(id));
    let info: InfoDict = cmd("INFO").query(&mut connection).unwrap();
    assert_eq!(info.get::<u8>("loading"), Some(0));
    assert!(info.get::<String>("redis_version").is_some());
    let about: String = cmd("CLIENT").arg("INFO").query(&mut connection).unwrap();
    assert!(about.contains("lib-name=redis-rs"), "{about}");
    let (): () = connection.client_setname("suite").unwrap();
    assert_eq!(connection.client_getname::<Option<String>>().unwrap().as_deref(), Some("suite"));
}

fn add_and_search(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = filled(&mut connection);
    assert!(!connection.vadd::<_, _, bool>(&key, VectorAddInput::Fp32(&X), "a").unwrap());
    let query = VectorSimilaritySearchInput::Fp32(&X);
    let names: Vec<String> = connection.vsim(&key, query.clone()).unwrap();
    assert_eq!(names, ["a", "c", "b"]);

    let scored = VSimOptions::default().set_with_scores(true);
    let scores: Vec<(String, f64)> = connection.vsim_options(&key, query.clone(), &scored).unwrap();
    let (names, scores): (Vec<_>, Vec<_>) = scores.into_iter().unzip();
    assert_eq!(names, ["a", "c", "b"]);
    assert_close(&[scores[0], scores[2]], &[1.0, RIGHT_ANGLE], TOLERANCE);

    let one = VSimOptions::default().set_count(1).set_truth(true).set_no_thread(true);
    assert_eq!(connection.vsim_options::<_, Vec<String>>(&key, element("b"), &one).unwrap(), ["b"]);
    let filter = VSimOptions::default().set_filter_expression(".n > 1").set_max_filtering_effort(10);
    assert_eq!(connection.vsim_options::<_, Vec<String>>(&key, query.clone(), &filter).unwrap(), ["c"]);
    let none = scored.set_filter_expression(".n > 9");
    assert!(connection.vsim_options::<_, Vec<(String, f64)>>(&key, query.clone(), &none).unwrap().is_empty());
    assert!(connection.vsim::<_, Vec<String>>(new_key(), query).unwrap().is_empty());
}

fn read_and_change(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = filled(&mut connection);
    assert_eq!(connection.vcard::<_, usize>(&key).unwrap(), 3);
    assert_eq!(connection.vdim::<_, usize>(&key).unwrap(), 3);
    assert_close(&connection.vemb::<_, _, Vec<f64>>(&key, "c").unwrap(), &[2.0, 1.0, 0.0], TOLERANCE);
    assert_eq!(connection.vemb::<_, _, Option<Vec<f64>>>(&key, "none").unwrap(), None);
    assert_eq!(
        connection.vgetattr::<_, _, Option<String>>(&key, "a").unwrap().as_deref(),
        Some(r#"{"n":1}"#)
    );
    assert!(connection.vsetattr::<_, _, _, bool>(&key, "b", &HashMap::from([("n", 3)])).unwrap());
    assert!(connection.vdelattr::<_, _, bool>(&key, "a").unwrap());
    assert_eq!(connection.vgetattr::<_, _, Option<String>>(&key, "a").unwrap(), None);
    let is_member: bool = cmd("VISMEMBER").arg(&key).arg("b").query(&mut connection).unwrap();
    assert!(is_member);
    assert!(connection.vrem::<_, _, bool>(&key, "b").unwrap());
    assert!(!connection.vrem::<_, _, bool>(&key, "b").unwrap());
    assert_eq!(connection.del::<_, usize>(&key).unwrap(), 1);
    assert!(connection.vinfo::<_, Option<HashMap<String, Value>>>(&key).unwrap().is_none());
}

fn sets_and_links(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = filled(&mut connection);
    let info = connection.vinfo::<_, Option<HashMap<String, Value>>>(&key).unwrap().unwrap();
    assert_eq!(info["quant-type"], Value::SimpleString("int8".into()));
    assert_eq!((&info["size"], &info["vector-dim"]), (&Value::Int(3), &Value::Int(3)));
    let raw = VEmbOptions::default().set_raw_representation(true);
    let (kind, codes, norm, range): (String, Vec<u8>, f64, f64) =
        connection.vemb_options(&key, "c", &raw).unwrap();
    assert_eq!((kind.as_str(), codes.len(), range > 0.0), ("int8", 3, true));
    assert_close(&[norm], &[5f64.sqrt()], TOLERANCE);

    let mut members: Vec<String> = connection.vrandmember_multiple(&key, 5).unwrap();
    members.sort();
    assert_eq!(members, ["a", "b", "c"]);
    assert!(connection.vrandmember::<_, Option<String>>(&key).unwrap().is_some());
    assert_eq!(connection.vrandmember::<_, Option<String>>(new_key()).unwrap(), None);
    let _layers: Vec<Vec<String>> = connection.vlinks(&key, "a").unwrap();
    let _layers: Vec<HashMap<String, f64>> = connection.vlinks_with_scores(&key, "a").unwrap();
    assert_eq!(connection.vlinks::<_, _, Value>(&key, "none").unwrap(), Value::Nil);
}

fn ranges(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = filled(&mut connection);
    let mut range = |words: &[&str]| -> Vec<String> {
        cmd("VRANGE").arg(&key).arg(words).query(&mut connection).unwrap()
    };
    assert_eq!(range(&["-", "+"]), ["a", "b", "c"]);
    assert_eq!(range(&["(a", "+", "1"]), ["b"]);
}

fn all_options(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = new_key();
    let options = VAddOptions::default()
        .set_check_and_set_style(true)
        .set_quantization(VectorQuantization::NoQuant)
        .set_build_exploration_factor(100)
        .set_max_number_of_links(8)
        .set_reduction_dimension(2);
    let input = VectorAddInput::Values(EmbeddingInput::Float64(&[0.1, 0.2, 0.3, 0.4]));
    assert!(connection.vadd_options::<_, _, bool>(&key, input, "a", &options).unwrap());
    assert_eq!(connection.vdim::<_, usize>(&key).unwrap(), 2);
}

fn binary(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let (key, vector) = (new_key(), [0.5, -1.0, 2.0]);
    let mut add = cmd("vadd");
    add.arg(&key).arg("fp32").arg(fp32(&vector)).arg(&BINARY_NAME[..]).arg("noquant");
    assert_eq!(add.query(&mut connection), Ok(true));
    let names: Vec<Vec<u8>> = connection.vsim(&key, VectorSimilaritySearchInput::Fp32(&vector)).unwrap();
    assert_eq!(names, [BINARY_NAME]);
    let raw = VEmbOptions::default().set_raw_representation(true);
    let (kind, unit, norm): (String, Vec<u8>, f64) =
        connection.vemb_options(&key, &BINARY_NAME[..], &raw).unwrap();
    assert_eq!(kind, "f32");
    let components: Vec<f64> =
        from_fp32(&unit).iter().map(|component| f64::from(*component) * norm).collect();
    assert_close(&components, &[0.5, -1.0, 2.0], 1e-5);
}

fn errors(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = filled(&mut connection);
    let mut refused = |words: &[&str], detail: &str| {
        let error = cmd(words[0]).arg(&words[1..]).query::<Value>(&mut connection).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError), "{error}");
        assert_eq!(error.detail(), Some(detail));
    };
    refused(&["VADD", &key, "VALUES", "2", "1", "0", "d"], "Vector dimension mismatch - got 2 but set has 3");
    refused(&["VADD", &key, "FP32", "odd", "d"], "invalid vector specification");
    refused(&["VADD", &key], "wrong number of arguments for 'VADD' command");
    refused(&["VSIM", &key, "ELE", "none"], "element not found in set");
    refused(&["VDIM", "none"], "key does not exist");
    refused(&["NOSUCH", "a"], "unknown command 'NOSUCH', with args beginning with: 'a' ");
    assert_eq!(connection.ping::<String>().unwrap(), "PONG");
}

fn transactions(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = new_key();
    let mut body = pipe();
    body.atomic().vadd(&key, VectorAddInput::Fp32(&X), "a").vcard(&key).vsim(&key, element("a"));
    let replies: (bool, usize, Vec<String>) = body.query(&mut connection).unwrap();
    assert_eq!(replies, (true, 1, vec!["a".into()]));

    // Another client changes the watched key during the first attempt only.
    let mut other = connect(protocol);
    let mut attempts = 0;
    let (added, card): (bool, usize) = redis::transaction(&mut connection, &[&key], |connection, body| {
        attempts += 1;
        if attempts == 1 {
            assert!(other.vadd::<_, _, bool>(&key, VectorAddInput::Fp32(&Y), "b")?);
        }
        body.vadd(&key, VectorAddInput::Fp32(&BETWEEN), "c").vcard(&key).query(connection)
    })
    .unwrap();
    assert_eq!((attempts, added, card), (2, true, 3));
}

fn pipelines(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = new_key();
    let mut adding = pipe();
    for row in 0..1000u16 {
        adding.vadd(&key, VectorAddInput::Fp32(&[1.0, f32::from(row), 1.0]), row);
    }
    let added: Vec<bool> = adding.query(&mut connection).unwrap();
    assert!(added.len() == 1000 && added.iter().all(|new| *new));
    let (card, names, pong): (usize, Vec<u16>, String) =
        pipe().vcard(&key).vsim(&key, element("0")).ping().query(&mut connection).unwrap();
    assert_eq!((card, names[0], pong.as_str()), (1000, 0, "PONG"));
}

fn scan(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let prefix = new_key();
    let mut expected: Vec<String> = (0..50).map(|n| format!("{prefix}:{n}")).collect();
    for key in &expected {
        assert!(connection.vadd::<_, _, bool>(key, VectorAddInput::Fp32(&X), "a").unwrap());
    }
    let options =
        ScanOptions::default().with_pattern(format!("{prefix}:*")).with_count(7).with_type("vectorset");
    let found: RedisResult<Vec<String>> = connection.scan_options(options).unwrap().collect();
    let mut found = found.unwrap();
    found.sort();
    found.dedup();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(connection.unlink::<_, usize>(&expected).unwrap(), expected.len());
}

fn keys(protocol: ProtocolVersion) {
    let mut connection = connect(protocol);
    let key = filled(&mut connection);
    assert_eq!(connection.key_type::<_, String>(&key).unwrap(), "vectorset");
    assert!(connection.exists::<_, bool>(&key).unwrap());
    assert_eq!(connection.ttl::<_, i64>(&key).unwrap(), -1);
    assert!(connection.expire::<_, bool>(&key, 100).unwrap());
    assert!(connection.ttl::<_, i64>(&key).unwrap() > 90);
    assert!(connection.persist::<_, bool>(&key).unwrap());
    let renamed = new_key();
    let (): () = connection.rename(&key, &renamed).unwrap();
    assert!(!connection.exists::<_, bool>(&key).unwrap());
    assert_eq!(connection.vcard::<_, usize>(&renamed).unwrap(), 3);
}

fn passwords(protocol: ProtocolVersion) {
    let password = password();
    for credentials in [format!(":{password}@"), format!("default:{password}@")] {
        let mut connection = client_of(protocol, locked_port(), &credentials).get_connection().unwrap();
        assert_eq!(connection.ping::<String>().unwrap(), "PONG");
    }
    for (credentials, code) in [(":wrong@", "WRONGPASS"), ("", "NOAUTH")] {
        let connection = client_of(protocol, locked_port(), credentials).get_connection();
        let refused = connection.and_then(|mut open| open.ping::<String>()).unwrap_err();
        let authentication = refused.kind() == ErrorKind::AuthenticationFailed;
        assert!(authentication || refused.code() == Some(code), "{refused:?}");
    }
}

/// One multiplexed connection that many tasks share.
fn asynchronous(protocol: ProtocolVersion) {
    block_on(async {
        let connection = client(protocol).get_multiplexed_async_connection().await.unwrap();
        let key = new_key();
        let adding = (0..500u16).map(|row| {
            let (mut connection, key) = (connection.clone(), key.clone());
            async move {
                let vector = [1.0, f32::from(row), 1.0];
                connection.vadd::<_, _, bool>(&key, VectorAddInput::Fp32(&vector), row).await
            }
        });
        assert!(futures_util::future::join_all(adding).await.into_iter().all(|new| new.unwrap()));

        let mut connection = connection;
        let scored = VSimOptions::default().set_with_scores(true).set_count(1);
        let scores: Vec<(u16, f64)> = connection.vsim_options(&key, element("0"), &scored).await.unwrap();
        assert_eq!(scores[0].0, 0);
        assert_close(&[scores[0].1], &[1.0], TOLERANCE);
        let mut body = pipe();
        body.atomic().vrem(&key, 7).vcard(&key);
        assert_eq!(body.query_async::<(bool, usize)>(&mut connection).await.unwrap(), (true, 499));
    });
}

fn asynchronous_scan(protocol: ProtocolVersion) {
    block_on(async {
        let mut connection = client(protocol).get_multiplexed_async_connection().await.unwrap();
        let prefix = new_key();
        for n in 0..30 {
            let key = format!("{prefix}:{n}");
            assert!(connection.vadd::<_, _, bool>(key, VectorAddInput::Fp32(&X), "a").await.unwrap());
        }
        let mut found = Vec::new();
        let mut keys = connection.scan_match::<_, String>(format!("{prefix}:*")).await.unwrap();
        while let Some(key) = keys.next_item().await {
            found.push(key.unwrap());
        }
        drop(keys);
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 30);
    });
}

/// A connection manager connects again after CLIENT KILL, in the same protocol version.
fn reconnects(protocol: ProtocolVersion) {
    block_on(async {
        let config = ConnectionManagerConfig::new().set_min_delay(PAUSE);
        let mut manager = client(protocol).get_connection_manager_with_config(config).await.unwrap();
        let key = new_key();
        assert!(manager.vadd::<_, _, bool>(&key, VectorAddInput::Fp32(&X), "a").await.unwrap());
        let id: i64 = manager.client_id().await.unwrap();
        let mut killer = connect(protocol);
        let killed: i64 = cmd("CLIENT").arg("KILL").arg("ID").arg(id).query(&mut killer).unwrap();
        assert_eq!(killed, 1);

        // The commands sent until the manager notices fail.
        let begin = Instant::now();
        let is_member = cmd("VISMEMBER").arg(&key).arg("a").to_owned();
        let reply: Value = loop {
            match is_member.query_async(&mut manager).await {
                Ok(reply) => break reply,
                Err(error) => assert!(begin.elapsed() < WAIT_MAX, "{error}"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        assert_ne!(manager.client_id::<i64>().await.unwrap(), id);
        assert!(bool::from_redis_value(reply.clone()).unwrap());
        assert_eq!(matches!(reply, Value::Boolean(_)), protocol == ProtocolVersion::RESP3);
    });
}
