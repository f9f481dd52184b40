//! TLS and the Unix socket: the same server behind other doors.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Server, WAIT_MAX, refused_start};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

fn path(name: &str) -> String {
    file(name).to_str().unwrap().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server with a TLS port, and that port.
fn start(certificate: &str, options: &[&str]) -> (Server, u16) {
    let port = free_port();
    let (chain, key) = (path(&format!("{certificate}.pem")), path(&format!("{certificate}.key")));
    let port_option = port.to_string();
    let mut all = vec!["--tls-port", &port_option, "--tls-cert-file", &chain, "--tls-key-file", &key];
    all.extend(options);
    (Server::start(&all), port)
}

/// What a client gets that trusts an authority and may show a certificate: the reply to a line, or why there is none.
fn ask(port: u16, authority: &str, certificate: Option<&str>, line: &str) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file(authority)).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap()];
            builder
                .with_client_auth_cert(
                    chain,
                    PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap(),
                )
                .unwrap()
        }
    };
    let connection =
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    exchange(&mut stream, line).map_err(|error| error.to_string())
}

fn exchange(stream: &mut (impl Read + Write), line: &str) -> std::io::Result<String> {
    stream.write_all(format!("{line}\r\n").as_bytes())?;
    stream.flush()?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte)?;
        reply.push(byte[0]);
    }
    Ok(String::from_utf8(reply).unwrap().trim_end().to_owned())
}

#[test]
fn who_trusts_the_server_is_served_and_large_replies_and_requests_pass() {
    let (server, port) = start("server", &["--tls-auth-clients", "no"]);
    assert_eq!(ask(port, "ca.pem", None, "PING").unwrap(), "+PONG");
    let long = "x".repeat(60_000);
    assert_eq!(ask(port, "ca.pem", None, &format!("ECHO {long}")).unwrap(), "$60000");
    // Several requests in one TLS record, answered in order though nothing more arrives.
    let lines = "VADD k VALUES 2 1 0 e\r\n".repeat(200) + "VCARD k";
    assert_eq!(ask(port, "ca.pem", None, &lines).unwrap(), ":1");
    assert_eq!(server.connect().ask("VCARD k"), ":1");
    let error = ask(port, "other-ca.pem", None, "PING").unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[test]
fn plain_text_on_the_tls_port_is_closed_and_does_no_harm() {
    let (server, port) = start("server", &["--tls-auth-clients", "no"]);
    for bytes in [&b"PING\r\n"[..], b"*1\r\n$4\r\nPING\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0; 1000]] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut reply = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut reply);
        assert!(!reply.windows(4).any(|four| four == b"PONG"), "{reply:?}");
    }
    assert_eq!(server.connect().ask("PING"), "+PONG");
    assert_eq!(ask(port, "ca.pem", None, "PING").unwrap(), "+PONG");
}

#[test]
fn an_expired_certificate_of_the_server_is_not_trusted() {
    let (_server, port) = start("expired-server", &["--tls-auth-clients", "no"]);
    let error = ask(port, "ca.pem", None, "PING").unwrap_err();
    assert!(error.to_lowercase().contains("expired"), "{error}");
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    let authority = path("ca.pem");
    let (_server, port) = start("server", &["--tls-ca-cert-file", &authority]);
    assert_eq!(ask(port, "ca.pem", Some("client"), "PING").unwrap(), "+PONG");
    for certificate in [None, Some("stranger"), Some("expired")] {
        assert!(ask(port, "ca.pem", certificate, "PING").is_err(), "{certificate:?}");
    }
    let (_server, port) =
        start("server", &["--tls-ca-cert-file", &authority, "--tls-auth-clients", "optional"]);
    assert_eq!(ask(port, "ca.pem", None, "PING").unwrap(), "+PONG");
    assert_eq!(ask(port, "ca.pem", Some("client"), "PING").unwrap(), "+PONG");
    assert!(ask(port, "ca.pem", Some("stranger"), "PING").is_err());
}

#[test]
fn certificates_are_loaded_again_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        std::fs::copy(file(&format!("{name}.pem")), folder.path().join("chain")).unwrap();
        std::fs::copy(file(&format!("{name}.key")), folder.path().join("key")).unwrap();
    };
    copy("expired-server");
    let port = free_port();
    let (chain, key) = (folder.path().join("chain"), folder.path().join("key"));
    let (chain, key, port_option) = (chain.to_str().unwrap(), key.to_str().unwrap(), port.to_string());
    let options = [
        "--tls-port",
        &port_option,
        "--tls-cert-file",
        chain,
        "--tls-key-file",
        key,
        "--tls-auth-clients",
        "no",
    ];
    let server = Server::start(&options);
    assert!(ask(port, "ca.pem", None, "PING").is_err());
    copy("server");
    let mut admin = server.connect();
    admin.check(&[(&format!("CONFIG SET tls-cert-file {chain}"), "+OK")]);
    assert_eq!(ask(port, "ca.pem", None, "PING").unwrap(), "+PONG");
    // A key that does not belong to the certificate is refused, and the old pair goes on.
    std::fs::copy(file("renewed.key"), folder.path().join("key")).unwrap();
    let refused = admin.ask(&format!("CONFIG SET tls-key-file {key}"));
    assert!(refused.starts_with("-ERR CONFIG SET failed"), "{refused}");
    assert_eq!(ask(port, "ca.pem", None, "PING").unwrap(), "+PONG");
    copy("renewed");
    server.signal("HUP");
    while !server.output().contains("certificates loaded again") {
        std::thread::yield_now();
    }
    assert_eq!(ask(port, "ca.pem", None, "PING").unwrap(), "+PONG");
}

#[test]
fn a_server_that_cannot_have_tls_does_not_start() {
    let (chain, key) = (path("server.pem"), path("server.key"));
    let port = free_port().to_string();
    for (options, told) in [
        (&["--tls-port", &port][..], "tls-cert-file"),
        (
            &["--tls-port", &port, "--tls-cert-file", &chain, "--tls-key-file", "/nothing"],
            "tls-key-file /nothing",
        ),
        (&["--tls-port", &port, "--tls-cert-file", &chain, "--tls-key-file", &key], "tls-auth-clients needs"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (code, output) = refused_start(folder.path(), options);
        assert!(code == Some(1) && output.contains(told), "{output}");
    }
}

#[test]
fn a_unix_socket_is_a_door_of_this_machine_and_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vecdis.sock");
    let options = ["--unixsocket", socket.to_str().unwrap(), "--unixsocketperm", "700"];
    let server = Server::start(&options);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o700);
    let mut stream = UnixStream::connect(&socket).unwrap();
    assert_eq!(exchange(&mut stream, "VADD k VALUES 2 1 0 e").unwrap(), ":1");
    let list = server.connect().ask("CLIENT LIST");
    assert!(list.contains(&format!("addr={}:0 ", socket.display())), "{list}");
    server.kill9();
    assert!(socket.exists(), "left behind");
    let server = Server::start(&options);
    assert_eq!(exchange(&mut UnixStream::connect(&socket).unwrap(), "DBSIZE").unwrap(), ":0");
    assert!(server.terminate("TERM").success());
    assert!(!socket.exists(), "removed at the end");
    // Another file of that name is not touched.
    std::fs::write(&socket, "mine").unwrap();
    let root = tempfile::tempdir().unwrap();
    let (code, output) = refused_start(root.path(), &options);
    assert!(code == Some(1) && output.contains("cannot listen on"), "{output}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "mine");
}
