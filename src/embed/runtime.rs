//! ONNX Runtime: a library that is looked for when a model first needs it, and not needed otherwise.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

/// Name of the library's file.
#[cfg(target_os = "macos")]
const LIBRARY: &str = "libonnxruntime.dylib";
/// Name of the library's file.
#[cfg(not(target_os = "macos"))]
const LIBRARY: &str = "libonnxruntime.so";

/// Where the library is looked for, and the library once it is found.
pub struct Runtime {
    candidates: Vec<PathBuf>,
    found: Mutex<Option<Environment>>,
}

impl Runtime {
    /// Looks at the configured path, `ORT_DYLIB_PATH`, beside the program, in `<dir>/lib`, and where the system looks. A
    /// path that is named explicitly is the only one.
    pub fn new(configured: &Path, dir: &Path) -> Self {
        let named = [configured.to_owned(), std::env::var_os("ORT_DYLIB_PATH").unwrap_or_default().into()];
        let candidates = match named.into_iter().find(|path| !path.as_os_str().is_empty()) {
            Some(path) => vec![path],
            None => {
                let program = std::env::current_exe().unwrap_or_default();
                let beside = program.parent().unwrap_or(Path::new("."));
                vec![
                    beside.join(LIBRARY),
                    beside.join("lib").join(LIBRARY),
                    dir.join("lib").join(LIBRARY),
                    LIBRARY.into(),
                ]
            }
        };
        Self { candidates, found: Mutex::default() }
    }

    /// The library, loaded now if it was not. A failure is not remembered: the library may be installed meanwhile.
    ///
    /// # Errors
    /// When it is not found or cannot be used; says what gets it.
    pub fn get(&self) -> Result<Environment, String> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(environment) = &*found {
            return Ok(environment.clone());
        }
        let mut why = "no file".to_owned();
        for path in &self.candidates {
            // A path is looked at first; a bare name is for the system's search.
            if path.components().count() > 1 && !path.is_file() {
                continue;
            }
            match load(path) {
                Ok(environment) => return Ok(found.insert(environment).clone()),
                Err(error) => why = error,
            }
        }
        Err(format!(
            "the ONNX Runtime library is missing ({why}): run scripts/fetch-model.sh, or set onnxruntime-path"
        ))
    }
}

fn load(path: &Path) -> Result<Environment, String> {
    // The system's messages name the path once or several times; one line of it will do.
    let short =
        |error: String| error.lines().next().unwrap_or_default().chars().take(200).collect::<String>();
    // The library is loaded where a relative path would be looked for beside the program first: what is there is taken.
    let path =
        std::path::absolute(path).ok().filter(|path| path.is_file()).unwrap_or_else(|| path.to_owned());
    let builder = ort::init_from(path).map_err(|error| short(error.to_string()))?;
    builder.with_name("vecdis").with_telemetry(false).build().map_err(|error| short(error.to_string()))
}
