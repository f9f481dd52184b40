//! A configuration file is refused in one line, or every option of the result prints what it reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vecdis::config::Config;

fuzz_target!(|input: &[u8]| {
    let mut config = Config::default();
    if let Err(error) = config.read_file("fuzzed", input) {
        return assert!(!error.to_string().contains('\n'), "{error}");
    }
    // Passwords and the lines of users are not printed.
    let (requirepass, users) = (config.requirepass.clone(), config.users.clone());
    let mut again = Config { requirepass, users, ..Config::default() };
    for (name, value) in config.matching(b"*") {
        if !matches!(name, "requirepass" | "user") {
            again.set(name, &value).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    assert_eq!(again, config);
});
