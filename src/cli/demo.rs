//! `vecdis demo`: a server of its own, a small sample of sentences, searches by meaning, and what to try next.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use super::arguments::Subcommand;
use super::child::ChildServer;
use super::client::{BytesFrame, Client, Command};
use super::sentences::{SENTENCES, Sentence};

/// The key that holds the sample.
const KEY: &str = "sentences";
/// Time between two looks at whether the server still runs.
const LOOK: Duration = Duration::from_millis(200);

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "demo",
    words: &[],
    values: &[],
    optional: &[],
    flags: &[],
    summary: "start a server of its own, load a small sample and search it",
    text: "The server listens on a free port of this machine and keeps its data in a scratch folder, which goes with it.
",
    failure_code: 1,
    run: |_| run(&mut io::stdout()).map(|()| ExitCode::SUCCESS),
};

/// Runs the demo, writing to `out`. When standard input is a terminal the server goes on until Ctrl-C (or
/// SIGTERM, SIGHUP).
///
/// # Errors
/// The server did not start, refused a command, or `out` is closed.
pub fn run(out: &mut dyn Write) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::io("cannot prepare for Ctrl-C"))?;
    let _inside = runtime.enter();
    // From here on Ctrl-C does not end the process before the server is stopped and its folder removed.
    let stop = StopSignals::listen().map_err(CliError::io("cannot prepare for Ctrl-C"))?;
    let program = std::env::current_exe().map_err(CliError::io("cannot find this program's file"))?;

    let mut server = ChildServer::start(&program)?;
    let port = server.address().port();
    let stays = io::stdin().is_terminal();
    let mut client = server.connect()?;
    show(&mut client, port, out)?;
    write_next_steps(port, stays, out).map_err(CliError::io("cannot print"))?;
    if stays {
        runtime.block_on(serve_until_stopped(&mut server, stop));
    }
    Ok(())
}

/// The signals that end the demo.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

async fn serve_until_stopped(server: &mut ChildServer, mut stop: StopSignals) {
    while !server.has_ended() {
        tokio::select! {
            _ = stop.interrupt.recv() => return,
            _ = stop.terminate.recv() => return,
            _ = stop.hang_up.recv() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Loads the sample and runs the searches, telling what happens.
fn show(client: &mut Client, port: u16, out: &mut dyn Write) -> Result<(), CliError> {
    let printing = || CliError::io("cannot print");
    writeln!(out, "A server of its own is running on 127.0.0.1:{port}, with an empty folder.\n")
        .map_err(printing())?;
    writeln!(
        out,
        "Adding {} sentences: the server turns each into a vector by its built-in model",
        SENTENCES.len()
    )
    .map_err(printing())?;
    let commands: Vec<Command> = SENTENCES.iter().map(add).collect();
    for (command, answer) in commands.iter().zip(client.pipeline(&commands)?) {
        if answer != BytesFrame::Integer(1) {
            return Err(unexpected(command, &answer));
        }
    }
    if let Some(first) = commands.first() {
        writeln!(out, "  > {first}").map_err(printing())?;
    }
    writeln!(out, "  ... and {} more, sent as one pipeline", SENTENCES.len() - 1).map_err(printing())?;

    for (title, search) in searches() {
        writeln!(out, "\n{title}\n  > {search}").map_err(printing())?;
        let answer = client.call(&search)?;
        let hits = hits(&answer).ok_or_else(|| unexpected(&search, &answer))?;
        for (id, score) in hits {
            let text = Sentence::named(&id).map_or("", |sentence| sentence.text);
            writeln!(out, "    {score:.4}  {id:<9} {text}").map_err(printing())?;
        }
    }
    Ok(())
}

fn unexpected(command: &Command, answer: &BytesFrame) -> CliError {
    let answer = format!("{answer:?}").chars().take(200).collect();
    CliError::Answer { command: command.name(), answer }
}

/// The command that adds a sentence.
fn add(sentence: &Sentence) -> Command {
    Command::new(["VADD", KEY, "TEXT", sentence.text, sentence.id, "SETATTR"]).arg(sentence.attributes())
}

/// The searches, each with what it is for.
fn searches() -> Vec<(&'static str, Command)> {
    let best = |text: &str| Command::new(["VSIM", KEY, "TEXT", text, "COUNT", "3", "WITHSCORES"]);
    let wage = "hourly wage not less than 13 dollars";
    vec![
        ("By meaning: no word of the question needs to stand in the answer", best("a kitten takes a nap")),
        ("... and another", best("dinner for a cold day")),
        ("Jobs. Meaning finds what is about wages; it does not compare numbers", best(wage)),
        ("... an attribute and a filter do", best(wage).arg("FILTER").arg(".wage >= 13")),
        (
            "Sentences like one that is there",
            Command::new(["VSIM", KEY, "ELE", "nature:2", "COUNT", "3", "WITHSCORES"]),
        ),
    ]
}

/// Reads the answer to a search `WITHSCORES`: names and scores in turn.
fn hits(answer: &BytesFrame) -> Option<Vec<(String, f64)>> {
    let BytesFrame::Array(items) = answer else {
        return None;
    };
    let text = |item: &BytesFrame| match item {
        BytesFrame::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    let pair = |pair: &[BytesFrame]| match pair {
        [name, score] => Some((text(name)?, text(score)?.parse().ok()?)),
        _ => None,
    };
    items.chunks(2).map(pair).collect()
}

fn write_next_steps(port: u16, stays: bool, out: &mut dyn Write) -> io::Result<()> {
    let examples = [
        Command::new(["VSIM", KEY, "TEXT", "trouble with computers", "WITHSCORES"]),
        Command::new(["VADD", KEY, "TEXT", "any sentence of yours", "mine"]),
        Command::new(["VGET", KEY, "music:1", "WITHTEXT", "WITHATTRIBS"]),
        Command::new(["VINFO", KEY]),
    ];
    match stays {
        true => writeln!(out, "\nThe server goes on. In another terminal, try:")?,
        false => writeln!(
            out,
            "\nWhile the demo runs in a terminal, one can go on in another one (PORT as it says there):"
        )?,
    }
    let port = if stays { port.to_string() } else { "PORT".to_owned() };
    for example in examples {
        writeln!(out, "  redis-cli -p {port} {example}")?;
    }
    match stays {
        true => writeln!(out, "Ctrl-C stops it and removes its data.")?,
        false => {
            writeln!(out, "Standard input is not a terminal, so the demo ends here and removes its data.")?
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::net::TcpListener;
    use std::thread;

    fn bulk(text: &str) -> BytesFrame {
        BytesFrame::BulkString(Bytes::from(text.to_owned()))
    }

    #[test]
    fn a_sentence_is_added_with_text_and_attributes() {
        assert_eq!(
            add(&SENTENCES[5]).to_string(),
            "VADD sentences TEXT 'Cashier at a supermarket, minimum wage of 13 dollars an hour' job:6 \
             SETATTR '{\"topic\":\"jobs\",\"wage\":13}'"
        );
    }

    #[test]
    fn searches_ask_for_sentences_that_exist() {
        for (_, search) in searches() {
            let line = search.to_string();
            if let Some((_, rest)) = line.split_once(" ELE ") {
                assert!(Sentence::named(rest.split(' ').next().unwrap()).is_some(), "{line}");
            }
        }
    }

    #[test]
    fn hits_are_names_and_scores_in_turn() {
        let answer = BytesFrame::Array(vec![bulk("food:1"), bulk("1"), bulk("food:2"), bulk("0.98")]);
        assert_eq!(hits(&answer).unwrap(), vec![("food:1".to_owned(), 1.0), ("food:2".to_owned(), 0.98)]);
        assert_eq!(hits(&BytesFrame::Array(Vec::new())), Some(Vec::new()));
        assert_eq!(hits(&BytesFrame::Array(vec![bulk("food:1")])), None);
        assert_eq!(hits(&BytesFrame::Array(vec![bulk("food:1"), bulk("much")])), None);
        assert_eq!(hits(&BytesFrame::Integer(1)), None);
    }

    /// Against a server that gives fixed answers: what is sent is complete, what is printed names commands
    /// and results.
    #[test]
    fn the_demo_tells_what_it_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let expected = SENTENCES.len() + searches().len();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = io::BufRead::lines(io::BufReader::new(&stream));
            let mut sent = Vec::new();
            while sent.len() < expected {
                // Each command begins with its length; the name is two lines on.
                if lines.next().unwrap().unwrap().starts_with('*') {
                    let name = lines.nth(1).unwrap().unwrap();
                    let answer: &[u8] = match name.as_str() {
                        "VADD" => b":1\r\n",
                        _ => b"*2\r\n$6\r\nfood:1\r\n$3\r\n0.5\r\n",
                    };
                    (&stream).write_all(answer).unwrap();
                    sent.push(name);
                }
            }
            sent
        });
        let mut client = Client::connect(address, Duration::from_secs(10)).unwrap();
        let mut out = Vec::new();
        show(&mut client, 7000, &mut out).unwrap();
        write_next_steps(7000, true, &mut out).unwrap();
        let sent = server.join().unwrap();
        assert_eq!(sent.iter().filter(|name| *name == "VADD").count(), SENTENCES.len());
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("127.0.0.1:7000") && text.contains("and 45 more"), "{text}");
        assert_eq!(text.matches("0.5000  food:1").count(), searches().len());
        assert!(text.contains("redis-cli -p 7000 VSIM sentences TEXT"));
    }
}
