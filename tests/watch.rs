//! `vecdis watch`: the collection equals the folder, whatever happens. `VECDIS_WATCH_FILES=5000` for many files.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::http::{Http, answer};
use common::{Client, PROGRAM, Server, Value, command, run, words};

const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the collection to equal the folder. Only a failing test meets it.
const EQUAL_MAX: Duration = Duration::from_secs(240);

/// A port that leads to a server which may be another one later.
struct Door {
    address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
}

impl Door {
    fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(server.address));
        let current = Arc::clone(&target);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), Ok(server)) = (stream, TcpStream::connect(*current.lock().unwrap())) else {
                    continue;
                };
                let (mut up, mut down) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(&mut up, &mut down));
                thread::spawn(move || pass(&mut { server }, &mut { stream }));
            }
        });
        Self { address, server: target }
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    let mut bytes = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// A watch that is running; killed when dropped.
struct Watch(Child);

impl Watch {
    fn start(folder: &Path, address: SocketAddr) -> Self {
        let mut program = Process::new(PROGRAM);
        program.args(["watch", folder.to_str().unwrap(), "docs", "--interval-ms", "20", "--server"]);
        Self(program.arg(address.to_string()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

fn once(folder: &Path, server: &Server, options: &[&str]) -> (bool, String, String) {
    let address = server.address.to_string();
    let arguments = ["watch", folder.to_str().unwrap(), "docs", "--once", "--server", &address];
    let output = run(&[&arguments, options].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The documents of a server with their texts, put together from their chunks.
fn documents(client: &mut Client) -> io::Result<BTreeMap<String, String>> {
    let list = client.try_call(&words("VDOC LIST docs 0 COUNT 1000000"))?;
    if list.is_error() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<String> = list.items()[1].items().iter().map(Value::text).collect();
    let mut found = BTreeMap::new();
    for name in names {
        let reply = client.try_call(&command(&["VDOC", "GET", "docs", &name, "CHUNKS"]))?;
        if reply != Value::Null {
            let texts = reply.field("chunks").items().iter().map(|chunk| chunk.field("text").text());
            found.insert(name, texts.collect());
        }
    }
    Ok(found)
}

/// The documents of a folder with their texts.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let names = common::files_below(folder)
        .into_iter()
        .filter(|name| name.ends_with(".txt") || name.ends_with(".md"));
    names.map(|name| (name.clone(), fs::read_to_string(folder.join(&name)).unwrap())).collect()
}

/// Waits until the collection equals the folder.
fn wait_until_equal(server: &Server, folder: &Path) -> Duration {
    let (begin, wanted) = (Instant::now(), files(folder));
    let mut client = server.connect_resp3();
    loop {
        let found = documents(&mut client).unwrap();
        if found == wanted {
            // Every element is a chunk of a document.
            let chunks: f64 = found
                .keys()
                .map(|name| client.call(&command(&["VDOC", "GET", "docs", name])).field("count").number())
                .sum();
            assert_eq!(client.call(&words("VCARD docs")).number(), chunks);
            return begin.elapsed();
        }
        let missing = wanted.iter().filter(|(name, text)| found.get(*name) != Some(text)).count();
        assert!(
            begin.elapsed() < EQUAL_MAX,
            "{missing} of {} are missing, {} are there",
            wanted.len(),
            found.len()
        );
        thread::sleep(PAUSE);
    }
}

/// Searches until it is told to stop; the server may go away meanwhile.
fn search(address: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::connect(address) else { continue };
        let ask =
            command(&["VSEARCH", "docs", "VECTOR", "TEXT", "boats at sea", "MATCH", "sea", "GROUPBY", "DOC"]);
        while !stop.load(Ordering::Relaxed) {
            match client.try_call(&ask) {
                Ok(reply) => assert!(!reply.is_error() || reply.text().starts_with("LOADING"), "{reply:?}"),
                Err(_) => break,
            }
            count += 1;
        }
    }
    count
}

#[test]
fn the_collection_equals_the_folder_whatever_changes_and_crashes() {
    let count: usize = std::env::var("VECDIS_WATCH_FILES").map_or(120, |count| count.parse().unwrap());
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let text = |number: usize, version: &str| {
        format!(
            "# File {number}\n\nA ship {version} number {number} sails over the sea.\n\nThe doctor waits.\n"
        )
    };
    let name = |number: usize| format!("part{}/file{number}.{}", number % 7, ["md", "txt"][number % 2]);
    (0..count).for_each(|number| write(folder, &name(number), &text(number, "of")));
    let server = Server::start_in(data.path(), &[]);
    let door = Door::to(&server);
    let watch = Watch::start(folder, door.address);
    let indexed = wait_until_equal(&server, folder);

    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped) = (door.address, Arc::clone(&stop));
    let searcher = thread::spawn(move || search(address, &stopped));
    // Changed, moved, removed and new ones, with a crash in the middle.
    let mut server = Some(server);
    for number in 0..count {
        let (path, moved) = (folder.join(name(number)), folder.join(format!("moved{number}.md")));
        match number % 10 {
            0 => write(folder, &name(number), &text(number, "with")),
            1 => fs::rename(path, moved).unwrap(),
            2 => fs::remove_file(path).unwrap(),
            3 => write(folder, &format!("new/{number}.txt"), &text(number, "new")),
            _ => {}
        }
        if number == count / 2 {
            server.take().unwrap().kill9();
            let next = Server::start_in(data.path(), &[]);
            *door.server.lock().unwrap() = next.address;
            server = Some(next);
        }
    }
    let server = server.unwrap();
    let changed = wait_until_equal(&server, folder);
    stop.store(true, Ordering::Relaxed);
    let searches = searcher.join().unwrap();
    assert!(searches > 0);
    drop(watch);

    // Nobody watches while these change; the next watch compares.
    fs::remove_file(folder.join("new/3.txt")).unwrap();
    write(folder, "late.md", &text(1, "late"));
    server.kill9();
    let server = Server::start_in(data.path(), &[]);
    let (done, told, _) = once(folder, &server, &[]);
    assert!(done, "{told}");
    let aligned = wait_until_equal(&server, folder);
    println!(
        "{count} files: {indexed:?} to index, {changed:?} to follow, {aligned:?} to compare, {searches} searches"
    );
}

#[test]
fn what_is_no_file_of_the_folder_is_left_alone_and_bad_files_are_named() {
    let (server, folder) = (Server::start(&[]), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let mut client = server.connect_resp3();
    for uri in ["http://example/page.html", "gone.md", "other/gone.md", "notes.pdf", "plain"] {
        client.call(&command(&["VDOC", "ADD", "docs", uri, "a page about the sea"]));
    }
    client.call(&words("VADD docs TEXT sea element"));
    write(folder, "a.md", "a file about the sea");
    write(folder, "empty.txt", " \n");
    write(folder, "page.html", "<p>a page</p>");
    fs::write(folder.join("binary.txt"), b"\xff\xfe").unwrap();
    let (done, told, warned) = once(folder, &server, &[]);
    assert!(done && told == "docs: 2 documents kept, 2 removed\n", "{told} {warned}");
    assert!(
        warned.contains("binary.txt: it is not UTF-8")
            && warned.contains("empty.txt: the document has no text")
    );
    let found = documents(&mut client).unwrap();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["a.md", "http://example/page.html", "notes.pdf", "page.html", "plain"]);
    assert_eq!(client.call(&words("VISMEMBER docs element")), Value::Boolean(true));
    // A file that can be a document no more goes.
    fs::write(folder.join("a.md"), b"\xff").unwrap();
    let (done, told, _) = once(folder, &server, &["--prefix", "p/"]);
    assert!(done && told == "docs: 1 documents kept, 0 removed\n", "{told}");
    let (_, told, _) = once(folder, &server, &[]);
    assert_eq!(told, "docs: 1 documents kept, 2 removed\n", "a.md, and p/page.html, which could be a file's");
}

#[test]
fn ctrl_c_ends_a_watch_and_mistakes_are_told_at_once() {
    let (server, folder) = (Server::start(&[]), tempfile::tempdir().unwrap());
    write(folder.path(), "a.md", "a file about the sea");
    let mut watch = Watch::start(folder.path(), server.address);
    wait_until_equal(&server, folder.path());
    let kill = format!("kill -INT {}", watch.0.id());
    assert!(Process::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(watch.0.wait().unwrap().success());
    let (done, _, warned) = once(&folder.path().join("nosuch"), &server, &[]);
    assert!(!done && warned.contains("cannot read the folder"), "{warned}");
    let nobody = run(&["watch", folder.path().to_str().unwrap(), "docs", "--server", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
}

#[test]
fn a_page_is_fetched_as_a_document() {
    let server = Server::start(&[]);
    let web = Http::start(|asked| {
        let html = "<html><head><title>Ships</title></head><body><p>A ship &amp; its crew.</p></body></html>";
        match asked.path.as_str() {
            "/page" => answer("200 OK", &[("content-type", "text/html; charset=utf-8")], html.as_bytes()),
            "/moved" => answer("302 Found", &[("location", "/page")], b""),
            "/latin" => answer(
                "200 OK",
                &[("content-type", "text/plain; charset=ISO-8859-1")],
                b"caf\xe9 ship \x93now\x94",
            ),
            "/image" => answer("200 OK", &[("content-type", "image/png")], b"x"),
            "/large" => answer("200 OK", &[("content-type", "text/plain")], &vec![b'x'; (16 << 20) + 1]),
            _ => answer("404 Not Found", &[], b""),
        }
    });
    let address = server.address.to_string();
    let fetch = |path: &str, options: &[&str]| {
        let url = if path.contains("://") { path.to_owned() } else { format!("{}{path}", web.url()) };
        let output = run(&[&["fetch", url.as_str(), "docs", "--server", &address], options].concat());
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    let mut client = server.connect_resp3();
    let (done, told) = fetch("/page", &[]);
    assert!(done && told.contains("is a document of 1 chunks"), "{told}");
    let found = documents(&mut client).unwrap();
    assert_eq!(found[&format!("{}/page", web.url())], "# Ships\n\nA ship & its crew.\n");
    assert!(fetch("/moved", &["--uri", "moved"]).0 && fetch("/latin", &["--uri", "latin"]).0);
    let found = documents(&mut client).unwrap();
    assert_eq!(
        (found["moved"].as_str(), found["latin"].as_str()),
        ("# Ships\n\nA ship & its crew.\n", "café ship “now”")
    );
    assert_eq!(fetch("/page", &["--print"]), (true, "# Ships\n\nA ship & its crew.\n".to_owned()));
    for (path, reason) in [
        ("/image", "image/png"),
        ("/large", "limit"),
        ("/nosuch", "404"),
        ("file:///etc/passwd", "http://"),
        ("http://127.0.0.1:1/", "127.0.0.1:1"),
    ] {
        let (done, told) = fetch(path, &[]);
        assert!(!done && told.contains(reason), "{path}: {told}");
    }
    assert_eq!(documents(&mut client).unwrap().len(), 3);
}
