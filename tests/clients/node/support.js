// What both suites share. The environment names the servers: VECDIS_PORT one without a password, VECDIS_LOCKED_PORT one
// with the password VECDIS_PASSWORD, both on 127.0.0.1 and empty. Tests run side by side, so each uses keys of its own.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

export const HOST = '127.0.0.1';
export const PORT = number('VECDIS_PORT');
export const LOCKED_PORT = number('VECDIS_LOCKED_PORT');
export const PASSWORD = process.env.VECDIS_PASSWORD;

// Longest time of one test; only one that hangs meets it.
export const TEST_MAX = { timeout: 60_000 };

export const X = [1, 0, 0];
export const Y = [0, 1, 0];
// Score of two vectors at a right angle.
export const RIGHT_ANGLE = 0.5;

// An element name that is no text: all that could confuse a framing or a conversion.
export const BINARY_NAME = Buffer.from([0, 0xff, 13, 10, 0x24, 0x80]);

function number(name) {
  const value = Number(process.env[name]);
  if (!value) throw new Error(`${name} is not set: run these tests with pytest tests/clients/test_node.py`);
  return value;
}

/** A key that no other test uses. */
export function newKey() {
  return `node:${randomBytes(8).toString('hex')}`;
}

/** A vector as little-endian f32. */
export function fp32(vector) {
  const bytes = Buffer.alloc(4 * vector.length);
  vector.forEach((component, i) => bytes.writeFloatLE(component, 4 * i));
  return bytes;
}

/** Compares numbers up to what 8-bit codes lose. */
export function assertClose(actual, expected, tolerance = 0.01) {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) =>
    assert.ok(Math.abs(value - expected[i]) <= tolerance, `${actual} is not ${expected}`),
  );
}

/** Waits for an event of a client, and fails with what the client tells instead if it gives up. */
export function event(client, name) {
  return new Promise((resolve, reject) => {
    client.once(name, resolve);
    client.once('end', () => reject(new Error(`the connection ended before ${name}`)));
  });
}
