//! The files of a folder that are documents.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::MAX_DOCUMENT_BYTES;

/// Endings of names, and what such files are written in.
const ENDINGS: [(&str, &str); 5] =
    [("txt", "txt"), ("md", "md"), ("markdown", "md"), ("html", "html"), ("htm", "html")];

/// What tells that a file has changed.
pub type Stamp = (Option<SystemTime>, u64);

/// A file as it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMet {
    /// Where it is.
    pub path: PathBuf,
    /// Its time and length.
    pub stamp: Stamp,
}

/// What a file of that name is written in; `None`: it is no document.
pub fn kind(name: &str) -> Option<&'static str> {
    let (stem, ending) = name.rsplit_once('.')?;
    let is_named = !stem.is_empty() && !stem.ends_with('/');
    let found = ENDINGS.iter().find(|(known, _)| is_named && ending.eq_ignore_ascii_case(known));
    found.map(|(_, kind)| *kind)
}

/// The documents below a folder, by their names relative to it with `/` between the parts. Hidden files and folders, links, and
/// names that are no text are left out.
///
/// # Errors
/// When a folder cannot be read. One that goes while it is read is no error.
pub fn scan(root: &Path) -> io::Result<BTreeMap<String, FileMet>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != root => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Does not follow links. A file that is gone already is left out.
            let about = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                about => about?,
            };
            if name.starts_with('.') {
                continue;
            }
            let uri = format!("{prefix}{name}");
            if about.is_dir() {
                folders.push((entry.path(), format!("{uri}/")));
            } else if about.is_file() && kind(&uri).is_some() {
                let stamp = (about.modified().ok(), about.len());
                found.insert(uri, FileMet { path: entry.path(), stamp });
            }
        }
    }
    Ok(found)
}

/// Why a file is no document.
pub enum Unreadable {
    /// It is gone.
    Gone,
    /// It cannot be one.
    Unfit(&'static str),
    /// The system refuses.
    Refused(io::Error),
}

/// The text of a file, without a byte order mark.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(path: &Path) -> Result<String, Unreadable> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Gone,
        _ => Unreadable::Refused(error),
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(refused)?;
    file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(Unreadable::Unfit("it is larger than 16 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| Unreadable::Unfit("it is not UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_known_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.md", "b.TXT", "c.pdf", "d", ".hidden.md", ".git/x.md", "deep/er/e.html", "deep/.md"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("a.md"), folder.path().join("link.md")).unwrap();
        let found = scan(folder.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a.md", "b.TXT", "deep/er/e.html"]);
        assert_eq!(
            (kind("x.MD"), kind("x.htm"), kind("x.rs"), kind("md")),
            (Some("md"), Some("html"), None, None)
        );
        assert!(scan(&folder.path().join("nosuch")).is_err());
    }

    #[test]
    fn files_that_cannot_be_documents_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        assert!(matches!(read(&path), Err(Unreadable::Gone)));
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(read(&path), Err(Unreadable::Unfit(_))));
        fs::write(&path, "\u{feff}text").unwrap();
        assert!(matches!(read(&path), Ok(text) if text == "text"));
    }
}
