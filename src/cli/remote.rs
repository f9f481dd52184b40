//! Servers that subcommands talk to: where they are, and how their answers read.

use std::net::ToSocketAddrs;
use std::time::Duration;

use super::CliError;
use super::client::{BytesFrame, Client, Command};

/// Longest wait for an answer: the server may embed texts, or search for the exact truth.
const ANSWER_MAX: Duration = Duration::from_secs(300);
/// Where a server listens if nothing else is said.
const DEFAULT_PORT: u16 = 6379;

/// A server, and perhaps a key on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<String>,
    /// The key named behind the server.
    pub key: Option<String>,
}

impl Place {
    /// Reads `HOST`, `HOST:PORT`, or `redis://[[USER]:PASSWORD@]HOST[:PORT][/KEY]`. "" is 127.0.0.1:6379.
    ///
    /// # Errors
    /// When it does not read.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let bad = || {
            CliError::Usage("a server is HOST:PORT, or redis://[USER:PASSWORD@]HOST:PORT[/KEY]".to_owned())
        };
        let rest = match text.split_once("://") {
            Some(("redis" | "vecdis", rest)) => rest,
            Some(_) => return Err(bad()),
            None => text,
        };
        let (server, key) = rest.split_once('/').map_or((rest, ""), |(server, key)| (server, key));
        let (login, address) =
            server.rsplit_once('@').map_or(("", server), |(login, address)| (login, address));
        let (user, password) = login.split_once(':').unwrap_or(("", login));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
            None => (address, DEFAULT_PORT),
        };
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let host = given(host.trim_matches(['[', ']'])).unwrap_or_else(|| "127.0.0.1".to_owned());
        let password = given(password).or_else(|| std::env::var("REDISCLI_AUTH").ok());
        Ok(Self { host, port, user: given(user), password, key: given(key) })
    }

    /// The server, for messages; without the password.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// As [`Client::connect`]; when the password is refused.
    pub fn connect(&self) -> Result<Client, CliError> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let mut addresses = addresses.map_err(CliError::io("cannot find the server"))?;
        let address =
            addresses.next().ok_or_else(|| CliError::Data(format!("{} has no address", self.host)))?;
        let mut client = Client::connect(address, ANSWER_MAX)?;
        if let Some(password) = &self.password {
            let user = self.user.iter().map(String::as_str);
            client.call(&Command::new(["AUTH"].into_iter().chain(user).chain([password.as_str()])))?;
        }
        Ok(client)
    }

    /// Whether the server is Vecdis.
    ///
    /// # Errors
    /// When it does not answer INFO.
    pub fn is_vecdis(&self, client: &mut Client) -> Result<bool, CliError> {
        let info = client.call(&Command::new(["INFO", "server"]))?;
        Ok(bulk(&info).is_some_and(|text| String::from_utf8_lossy(&text).contains("vecdis_version:")))
    }
}

/// The bytes of a string of either kind.
pub fn bulk(frame: &BytesFrame) -> Option<Vec<u8>> {
    match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}

/// A count.
pub fn number(frame: &BytesFrame) -> Option<u64> {
    match frame {
        BytesFrame::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// Names and values in turn.
pub fn pairs(frame: &BytesFrame) -> Option<Vec<(String, BytesFrame)>> {
    let BytesFrame::Array(items) = frame else { return None };
    let pair = |pair: &[BytesFrame]| match pair {
        [name, value] => Some((String::from_utf8_lossy(&bulk(name)?).into_owned(), value.clone())),
        _ => None,
    };
    items.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_with_all_their_parts() {
        let place = |text: &str| Place::parse(text).unwrap();
        let parts = |text: &str| {
            let place = place(text);
            (place.name(), place.user, place.password, place.key)
        };
        assert_eq!(parts("").0, "127.0.0.1:6379");
        assert_eq!(parts("example:7000").0, "example:7000");
        let (name, user, password, key) = parts("redis://me:se@cret@[::1]:7000/a/key:1");
        assert_eq!((name.as_str(), user.as_deref()), ("::1:7000", Some("me")));
        assert_eq!((password.as_deref(), key.as_deref()), (Some("se@cret"), Some("a/key:1")));
        assert_eq!(parts("redis://:pw@host/").2.as_deref(), Some("pw"));
        assert!(Place::parse("http://x").is_err() && Place::parse("x:many").is_err());
    }
}
