//! `vecdis demo`: a server of its own, a small sample, four searches, and what to try next.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use super::arguments::Subcommand;
use super::child::ChildServer;
use super::client::{BytesFrame, Client, Command};
use super::colours::{COLOURS, Colour};

/// The key that holds the sample.
const KEY: &str = "colours";
/// The colour that is shown being added.
const SHOWN: &str = "tomato";
/// Time between two looks at whether the server still runs.
const LOOK: Duration = Duration::from_millis(200);

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "demo",
    words: &[],
    values: &[],
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
    let style = Style { swatches: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() };
    let mut client = server.connect()?;
    show(&mut client, &style, port, out)?;
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
fn show(client: &mut Client, style: &Style, port: u16, out: &mut dyn Write) -> Result<(), CliError> {
    let printing = || CliError::io("cannot print");
    writeln!(out, "A server of its own is running on 127.0.0.1:{port}, with an empty folder.\n")
        .map_err(printing())?;
    writeln!(out, "Adding {} named colours: red, green and blue as a vector", COLOURS.len())
        .map_err(printing())?;
    writeln!(out, "(each from -0.5 to 0.5), family and brightness as attributes").map_err(printing())?;
    let commands: Vec<Command> =
        COLOURS.iter().map(|&(name, hex)| add(name, Colour::from_hex(hex))).collect();
    for (command, answer) in commands.iter().zip(client.pipeline(&commands)?) {
        if answer != BytesFrame::Integer(1) {
            return Err(unexpected(command, &answer));
        }
    }
    if let Some(shown) = Colour::named(SHOWN) {
        writeln!(out, "  > {}", add(SHOWN, shown)).map_err(printing())?;
    }
    writeln!(out, "  ... and {} more, sent as one pipeline", COLOURS.len() - 1).map_err(printing())?;

    for (title, search) in searches() {
        writeln!(out, "\n{title}\n  > {search}").map_err(printing())?;
        let answer = client.call(&search)?;
        let hits = hits(&answer).ok_or_else(|| unexpected(&search, &answer))?;
        for (name, score) in hits {
            writeln!(out, "{}", style.hit(&name, score)).map_err(printing())?;
        }
    }
    Ok(())
}

fn unexpected(command: &Command, answer: &BytesFrame) -> CliError {
    let answer = format!("{answer:?}").chars().take(200).collect();
    CliError::Answer { command: command.name(), answer }
}

/// The command that adds a colour.
fn add(name: &str, colour: Colour) -> Command {
    values(Command::new(["VADD", KEY]), colour).arg(name).arg("SETATTR").arg(colour.attributes())
}

/// Adds `VALUES 3 r g b`, with the few digits a colour needs (a step of 1/255 is 0.0039).
fn values(command: Command, colour: Colour) -> Command {
    let command = command.arg("VALUES").arg("3");
    colour.vector().iter().fold(command, |command, part| command.arg(format!("{part:.4}")))
}

/// The searches, each with what it is for.
fn searches() -> Vec<(&'static str, Command)> {
    let like = |name: &str| Command::new(["VSIM", KEY, "ELE", name]);
    let best = |command: Command| command.arg("COUNT").arg("5").arg("WITHSCORES");
    let filter = |command: Command, expression: &str| command.arg("FILTER").arg(expression);
    vec![
        ("Colours like tomato", best(like("tomato"))),
        ("Like tomato, but dark", filter(best(like("tomato")), ".brightness < 0.4")),
        ("Like teal, but of the green family", filter(best(like("teal")), r#".family == "green""#)),
        (
            "Names for a colour that has none, #3a7ca5",
            best(values(Command::new(["VSIM", KEY]), Colour::from_hex(0x3a_7c_a5))),
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

/// How results look.
struct Style {
    /// Whether to paint each colour (the terminal shows 24-bit colours).
    swatches: bool,
}

impl Style {
    /// A line for a found colour.
    fn hit(&self, name: &str, score: f64) -> String {
        let Some(colour) = Colour::named(name) else {
            return format!("    {score:.4}  {name}");
        };
        let [red, green, blue] = colour.rgb;
        let swatch = if self.swatches {
            format!("\x1b[48;2;{red};{green};{blue}m    \x1b[0m  ")
        } else {
            String::new()
        };
        let (hex, family, brightness) = (colour.hex(), colour.family(), colour.brightness());
        format!("    {score:.4}  {swatch}{name:<20}  {hex}  {family:<6}  brightness {brightness:.2}")
    }
}

fn write_next_steps(port: u16, stays: bool, out: &mut dyn Write) -> io::Result<()> {
    let examples = [
        Command::new(["VSIM", KEY, "ELE", "navy", "COUNT", "5", "WITHSCORES"]),
        Command::new(["VSIM", KEY, "ELE", "gold", "FILTER", r#".family in ["brown","orange"]"#]),
        Command::new(["VGETATTR", KEY, "rebeccapurple"]),
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
    fn a_colour_is_added_with_vector_and_attributes() {
        assert_eq!(
            add("tomato", Colour::named("tomato").unwrap()).to_string(),
            r#"VADD colours VALUES 3 0.5000 -0.1118 -0.2216 tomato SETATTR '{"family":"red","brightness":0.56}'"#
        );
    }

    #[test]
    fn searches_read_well_and_ask_for_colours_that_exist() {
        let lines: Vec<String> = searches().iter().map(|(_, search)| search.to_string()).collect();
        assert_eq!(lines[1], "VSIM colours ELE tomato COUNT 5 WITHSCORES FILTER '.brightness < 0.4'");
        assert!(lines[3].starts_with("VSIM colours VALUES 3 -0.2725 -0.0137 0.1471 COUNT 5"));
        for line in &lines {
            if let Some((_, rest)) = line.split_once(" ELE ") {
                assert!(Colour::named(rest.split(' ').next().unwrap()).is_some(), "{line}");
            }
        }
    }

    #[test]
    fn hits_are_names_and_scores_in_turn() {
        let answer = BytesFrame::Array(vec![bulk("tomato"), bulk("1"), bulk("coral"), bulk("0.98")]);
        assert_eq!(hits(&answer).unwrap(), vec![("tomato".to_owned(), 1.0), ("coral".to_owned(), 0.98)]);
        assert_eq!(hits(&BytesFrame::Array(Vec::new())), Some(Vec::new()));
        assert_eq!(hits(&BytesFrame::Array(vec![bulk("tomato")])), None);
        assert_eq!(hits(&BytesFrame::Array(vec![bulk("tomato"), bulk("much")])), None);
        assert_eq!(hits(&BytesFrame::Integer(1)), None);
    }

    #[test]
    fn a_hit_is_painted_only_when_asked() {
        let line = Style { swatches: false }.hit("tomato", 1.0);
        assert_eq!(line, "    1.0000  tomato                #ff6347  red     brightness 0.56");
        assert!(Style { swatches: true }.hit("tomato", 1.0).contains("\x1b[48;2;255;99;71m"));
        assert_eq!(Style { swatches: true }.hit("x", 0.5), "    0.5000  x");
    }

    /// Against a server that gives fixed answers: what is sent is complete, what is printed names commands
    /// and results.
    #[test]
    fn the_demo_tells_what_it_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let expected = COLOURS.len() + searches().len();
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
                        _ => b"*2\r\n$6\r\ntomato\r\n$3\r\n0.5\r\n",
                    };
                    (&stream).write_all(answer).unwrap();
                    sent.push(name);
                }
            }
            sent
        });
        let mut client = Client::connect(address, Duration::from_secs(10)).unwrap();
        let mut out = Vec::new();
        show(&mut client, &Style { swatches: false }, 7000, &mut out).unwrap();
        write_next_steps(7000, true, &mut out).unwrap();
        let sent = server.join().unwrap();
        assert_eq!(sent.iter().filter(|name| *name == "VADD").count(), COLOURS.len());
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("127.0.0.1:7000") && text.contains("and 140 more"), "{text}");
        assert_eq!(text.matches("0.5000  tomato").count(), searches().len());
        assert!(text.contains("redis-cli -p 7000 VSIM colours ELE navy"));
    }
}
