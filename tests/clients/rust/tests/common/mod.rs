//! What both suites share. The environment names the servers: VECDIS_PORT one without a password, VECDIS_LOCKED_PORT one
//! with the password VECDIS_PASSWORD, both on 127.0.0.1. Tests run side by side, so each uses keys of its own.

#![allow(dead_code, reason = "each suite uses a part")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub const HOST: &str = "127.0.0.1";
/// Longest wait for anything that should happen soon. Only a hanging test meets it.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at something that is awaited.
pub const PAUSE: Duration = Duration::from_millis(10);

pub const X: [f32; 3] = [1.0, 0.0, 0.0];
pub const Y: [f32; 3] = [0.0, 1.0, 0.0];
pub const BETWEEN: [f32; 3] = [2.0, 1.0, 0.0];
/// Score of two vectors at a right angle.
pub const RIGHT_ANGLE: f64 = 0.5;
/// What 8-bit codes lose of a component, and of a score.
pub const TOLERANCE: f64 = 0.01;
/// An element name that is no text: all that could confuse a framing or a conversion.
pub const BINARY_NAME: [u8; 6] = [0, 0xff, 13, 10, 0x24, 0x80];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run pytest tests/clients/test_rust.py"))
}

pub fn port() -> u16 {
    variable("VECDIS_PORT").parse().unwrap()
}

pub fn locked_port() -> u16 {
    variable("VECDIS_LOCKED_PORT").parse().unwrap()
}

pub fn password() -> String {
    variable("VECDIS_PASSWORD")
}

/// A key that no other test uses.
pub fn new_key() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("rust:{}:{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A vector as little-endian f32.
pub fn fp32(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}

/// The f32 of little-endian bytes.
pub fn from_fp32(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[track_caller]
pub fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64) {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance;
    assert!(
        actual.len() == expected.len() && actual.iter().zip(expected).all(near),
        "{actual:?} is not {expected:?}"
    );
}

/// The tests of a suite, once for each protocol version.
#[macro_export]
macro_rules! both_protocols {
    ($version:ident: $($name:ident)*) => {
        both_protocols!(@ resp2 $version::RESP2: $($name)*);
        both_protocols!(@ resp3 $version::RESP3: $($name)*);
    };
    (@ $module:ident $version:ident::$variant:ident: $($name:ident)*) => {
        mod $module {
            $(#[test]
            fn $name() {
                super::$name(super::$version::$variant);
            })*
        }
    };
}
