//! Logs in with redis-rs as the environment says (like ../node/whoami.js), blocking and asynchronously, and prints the user that
//! the server took it for.

use std::env;

use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisResult, TlsCertificates, cmd,
};

/// A variable of the environment; one that is not set is empty.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn main() -> RedisResult<()> {
    rustls::crypto::ring::default_provider().install_default().expect("no provider was there");
    let port = variable("VECDIS_PORT").parse().unwrap_or_default();
    let address = match variable("VECDIS_TRANSPORT").as_str() {
        "tls" => ConnectionAddr::TcpTls { host: "localhost".into(), port, insecure: false, tls_params: None },
        "unix" => ConnectionAddr::Unix(variable("VECDIS_SOCKET").into()),
        _ => ConnectionAddr::Tcp("127.0.0.1".into(), port),
    };
    let mut login = RedisConnectionInfo::default().set_password(variable("VECDIS_PASSWORD"));
    if !variable("VECDIS_USER").is_empty() {
        login = login.set_username(variable("VECDIS_USER"));
    }
    let info = address.into_connection_info()?.set_redis_settings(login);
    let client = if variable("VECDIS_TRANSPORT") == "tls" {
        let root_cert = Some(std::fs::read(variable("VECDIS_AUTHORITY"))?);
        Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
    } else {
        Client::open(info)?
    };
    let user: String = cmd("ACL").arg("WHOAMI").query(&mut client.get_connection()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let again: String = runtime.block_on(async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        cmd("ACL").arg("WHOAMI").query_async(&mut connection).await
    })?;
    assert_eq!(user, again, "the two kinds of connection differ");
    println!("{user}");
    Ok(())
}
