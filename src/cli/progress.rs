//! A bar that shows how far a long job is, where standard error is a terminal; elsewhere nothing is shown.

use indicatif::{ProgressBar, ProgressStyle};

/// Such a bar; gone when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for a job over so many bytes.
    pub fn new(doing: &'static str, total_bytes: u64) -> Self {
        let style =
            ProgressStyle::with_template("{msg} {bar:40} {percent:>3} % of {total_bytes}, {eta} left");
        let bar = ProgressBar::new(total_bytes);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(doing);
        Self(bar)
    }

    /// A bar, or a running number, for a job over so many things.
    pub fn count(what: &'static str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{msg} {bar:40} {human_pos} of {human_len}, {per_sec}, {eta} left",
            None => "{msg} {human_pos}, {per_sec}",
        };
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(what);
        Self(bar)
    }

    /// So many more are done.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// So many are done.
    pub fn set(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
