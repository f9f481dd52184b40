// node-redis (package "redis"): its vector-set methods and raw commands, with the default protocol, RESP2 and RESP3.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';

import { createClient, createClientPool, ErrorReply, MultiErrorReply, RESP_TYPES, WatchError } from 'redis';

import { assertClose, BINARY_NAME, event, fp32, HOST, LOCKED_PORT, newKey, PASSWORD, PORT } from './support.js';
import { RIGHT_ANGLE, TEST_MAX, X, Y } from './support.js';

const SOCKET = { host: HOST, port: PORT };
const AS_BUFFERS = { [RESP_TYPES.BLOB_STRING]: Buffer };

/** An error of the server with this text. */
const says = (message) => (error) => error instanceof ErrorReply && error.message === message;

for (const [name, options] of [
  ['default options', {}],
  ['RESP2', { RESP: 2 }],
  ['RESP3', { RESP: 3 }],
]) {
  const protocol = options.RESP ?? 3;
  // Replies to raw commands keep their types: RESP2 has numbers for booleans.
  const yes = protocol === 3 ? true : 1;
  const no = protocol === 3 ? false : 0;

  describe(`node-redis, ${name}`, TEST_MAX, () => {
    let client, key, created;

    const connect = async (extra = {}) => {
      const another = createClient({ socket: SOCKET, ...options, ...extra });
      another.on('error', () => {});
      created.push(another);
      return another.connect();
    };

    beforeEach(async () => {
      created = [];
      client = await connect();
      key = newKey();
    });

    afterEach(async () => {
      await client.del(key);
      // An open connection would keep node from ending.
      created.filter((each) => each.isOpen).forEach((each) => each.destroy());
    });

    const fill = async () => {
      assert.equal(await client.vAdd(key, X, 'a', { SETATTR: { n: 1, lang: 'en' } }), true);
      assert.equal(await client.vAdd(key, Y, 'b'), true);
      assert.equal(await client.vAdd(key, [2, 1, 0], 'c', { SETATTR: { n: 2, lang: 'de' } }), true);
    };

    test('says hello and pings', async () => {
      assert.equal(await client.ping(), 'PONG');
      assert.equal(await client.ping('text'), 'text');
      assert.equal(await client.echo('again'), 'again');
      const hello = await client.hello(protocol);
      assert.deepEqual([hello.server, hello.proto, hello.mode, hello.role], ['redis', protocol, 'standalone', 'master']);
      assert.equal(hello.id, await client.clientId());
      assert.match(await client.info('server'), /^redis_version:\d+\.\d+/m);
      assert.match(await client.info(), /^loading:0/m);
      assert.match(await client.clientInfo().then((info) => info.libName), /redis/);
    });

    test('has a name and a database', async () => {
      const named = await connect({ name: 'suite', database: 0 });
      assert.equal(await named.clientGetName(), 'suite');
      await named.select(0);
      assert.equal(await named.ping(), 'PONG');
    });

    test('adds and searches', async () => {
      await fill();
      assert.equal(await client.vAdd(key, X, 'a'), false);
      assert.deepEqual(await client.vSim(key, X), ['a', 'c', 'b']);
      assert.deepEqual(await client.vSim(key, 'b', { COUNT: 1 }), ['b']);
      assert.deepEqual(await client.vSim(key, X, { FILTER: '.n > 1 and .lang == "de"' }), ['c']);
      assert.deepEqual(await client.vSim(key, X, { TRUTH: true, EF: 50, NOTHREAD: true, 'FILTER-EF': 10 }), ['a', 'c', 'b']);
      assert.deepEqual(await client.vSim(key, X, { EPSILON: 0.2 }), ['a', 'c']);
      const scores = await client.vSimWithScores(key, X);
      assert.deepEqual(Object.keys(scores), ['a', 'c', 'b']);
      assertClose([scores.a, scores.b], [1, RIGHT_ANGLE], 1e-3);
      assert.deepEqual(await client.vSim(newKey(), X), []);
      assert.deepEqual({ ...(await client.vSimWithScores(key, X, { FILTER: '.n > 9' })) }, {});
    });

    test('reads and changes elements', async () => {
      await fill();
      assert.deepEqual([await client.vCard(key), await client.vDim(key), await client.vCard(newKey())], [3, 3, 0]);
      assertClose(await client.vEmb(key, 'c'), [2, 1, 0]);
      assert.deepEqual(await client.vGetAttr(key, 'a'), { n: 1, lang: 'en' });
      assert.equal(await client.vGetAttr(key, 'b'), null);
      assert.equal(await client.vSetAttr(key, 'b', { n: 3 }), true);
      assert.deepEqual(await client.vGetAttr(key, 'b'), { n: 3 });
      assert.equal(await client.vSetAttr(key, 'none', '{}'), false);
      assert.equal(await client.vRem(key, 'b'), true);
      assert.equal(await client.vRem(key, 'b'), false);
      assert.deepEqual([await client.type(key), await client.exists(key), await client.del(key)], ['vectorset', 1, 1]);
      // vInfo() itself fails on the null that RESP2 has here.
      assert.equal(await client.sendCommand(['VINFO', key]), null);
    });

    test('tells about sets', async () => {
      await fill();
      const info = await client.vInfo(key);
      assert.deepEqual([info['quant-type'], info['vector-dim'], info.size, info['attributes-count']], ['int8', 3, 3, 2]);
      const raw = await client.vEmbRaw(key, 'c');
      assert.equal(raw.quantization, 'int8');
      assertClose([raw.l2Norm], [Math.sqrt(5)], 1e-3);
      assert.equal(typeof raw.quantizationRange, 'number');
    });

    test('lists members and links', async () => {
      await fill();
      assert.ok(['a', 'b', 'c'].includes(await client.vRandMember(key)));
      assert.deepEqual((await client.vRandMember(key, 5)).sort(), ['a', 'b', 'c']);
      assert.equal((await client.vRandMember(key, -5)).length, 5);
      assert.equal(await client.vRandMember(newKey()), null);
      assert.ok(Array.isArray(await client.vLinks(key, 'a')));
      assert.ok(Array.isArray(await client.vLinksWithScores(key, 'a')));
      assert.equal(await client.vLinks(key, 'none'), null);
    });

    test('lists ranges', async () => {
      await fill();
      assert.deepEqual(await client.vRange(key, '-', '+'), ['a', 'b', 'c']);
      assert.deepEqual(await client.vRange(key, '(a', '+', 1), ['b']);
    });

    test('takes every option of VADD', async () => {
      const all = { CAS: true, QUANT: 'NOQUANT', EF: 100, M: 8, SETATTR: { n: 1 } };
      assert.equal(await client.vAdd(key, [0.1, 0.2, 0.3], 'a', all), true);
      assertClose(await client.vEmb(key, 'a'), [0.1, 0.2, 0.3], 1e-6);
      const reduced = newKey();
      assert.equal(await client.vAdd(reduced, [1, 2, 3, 4], 'a', { REDUCE: 2 }), true);
      assert.equal(await client.vDim(reduced), 2);
      assert.equal(await client.del(reduced), 1);
    });

    test('sends raw commands', async () => {
      assert.equal(await client.sendCommand(['vadd', key, 'values', '3', '1', '0', '0', 'a', 'setattr', '{"n":1}']), yes);
      assert.equal(await client.sendCommand(['VADD', key, 'VALUES', '3', '0', '1', '0', 'b']), yes);
      assert.equal(await client.sendCommand(['VISMEMBER', key, 'none']), no);
      const found = await client.sendCommand(['VSIM', key, 'ELE', 'a', 'WITHSCORES', 'WITHATTRIBS']);
      if (protocol === 3) {
        assert.deepEqual(Object.keys(found), ['a', 'b']);
        assert.ok(typeof found.a[0] === 'number' && found.a[1] === '{"n":1}' && found.b[1] === null);
      } else {
        assert.deepEqual([found[0], found[2], found[3], found[5]], ['a', '{"n":1}', 'b', null]);
      }
    });

    test('keeps binary vectors and names', async () => {
      const binary = client.withTypeMapping(AS_BUFFERS);
      const vector = fp32([0.5, -1, 2]);
      assert.equal(await client.sendCommand(['VADD', key, 'FP32', vector, BINARY_NAME, 'NOQUANT']), yes);
      assert.equal(await client.sendCommand(['VISMEMBER', key, BINARY_NAME]), yes);
      assert.deepEqual(await binary.sendCommand(['VSIM', key, 'FP32', vector]), [BINARY_NAME]);
      const [kind, bytes, norm] = await binary.sendCommand(['VEMB', key, BINARY_NAME, 'RAW']);
      assert.equal(kind.toString(), 'f32');
      const unit = [0, 4, 8].map((at) => bytes.readFloatLE(at));
      assertClose(unit.map((component) => component * Number(norm)), [0.5, -1, 2], 1e-5);
    });

    test('runs transactions', async () => {
      const replies = await client.multi().vAdd(key, X, 'a').vAdd(key, X, 'a').vCard(key).vSim(key, X).exec();
      assert.deepEqual(replies, [true, false, 1, ['a']]);
      await assert.rejects(client.multi().vCard(key).vAdd(key, [1, 2], 'b').exec(), (error) => {
        assert.ok(error instanceof MultiErrorReply);
        assert.deepEqual(error.errorIndexes, [1]);
        return error.replies[0] === 1;
      });
      const other = await connect();
      await client.watch(key);
      await other.vAdd(key, Y, 'b');
      await assert.rejects(client.multi().vRem(key, 'a').exec(), WatchError);
      assert.equal(await client.vCard(key), 2);
    });

    test('pipelines', async () => {
      const names = Array.from({ length: 1000 }, (_, i) => `e${i}`);
      const added = await Promise.all(names.map((element, i) => client.vAdd(key, [1, i, 1], element)));
      assert.ok(added.every((isNew) => isNew === true));
      const replies = await client.multi().vCard(key).ping().vSim(key, 'e0', { COUNT: 1 }).execAsPipeline();
      assert.deepEqual(replies, [1000, 'PONG', ['e0']]);
    });

    test('iterates over keys', async () => {
      const keys = Array.from({ length: 50 }, (_, i) => `${key}:${i}`);
      await Promise.all(keys.map((each) => client.vAdd(each, X, 'a')));
      const found = new Set();
      for await (const some of client.scanIterator({ MATCH: `${key}:*`, COUNT: 7, TYPE: 'vectorset' })) {
        some.forEach((each) => found.add(each));
      }
      assert.deepEqual([...found].sort(), [...keys].sort());
      assert.deepEqual((await client.keys(`${key}:*`)).sort(), [...keys].sort());
      assert.equal(await client.del(keys), keys.length);
    });

    test('expires and renames keys', async () => {
      await fill();
      assert.deepEqual([await client.ttl(key), await client.expire(key, 100)], [-1, 1]);
      assert.ok((await client.ttl(key)) > 90);
      assert.deepEqual([await client.persist(key), await client.ttl(newKey())], [1, -2]);
      const renamed = newKey();
      assert.equal(await client.rename(key, renamed), 'OK');
      assert.deepEqual([await client.exists(key), await client.vCard(renamed)], [0, 3]);
      await client.del(renamed);
    });

    test('connects again after CLIENT KILL', async () => {
      const killer = await connect();
      await client.vAdd(key, X, 'a');
      const id = await client.clientId();
      const again = event(client, 'ready');
      assert.equal(Number(await killer.sendCommand(['CLIENT', 'KILL', 'ID', String(id)])), 1);
      await again;
      assert.notEqual(await client.clientId(), id);
      // A reply in the old protocol version would show that the handshake was lost.
      assert.equal(await client.sendCommand(['VISMEMBER', key, 'a']), yes);
    });

    test('shows the texts of errors', async () => {
      await fill();
      const refused = (command, message) => assert.rejects(client.sendCommand(command), says(message));
      await refused(['VADD', key, 'VALUES', '2', '1', '0', 'd'], 'ERR Vector dimension mismatch - got 2 but set has 3');
      await refused(['VADD', key, 'FP32', 'odd', 'd'], 'ERR invalid vector specification');
      await refused(['VADD', key], "ERR wrong number of arguments for 'VADD' command");
      await refused(['VSIM', key, 'ELE', 'none'], 'ERR element not found in set');
      await refused(['VDIM', newKey()], 'ERR key does not exist');
      await refused(['NOSUCH', 'a'], "ERR unknown command 'NOSUCH', with args beginning with: 'a' ");
      await assert.rejects(client.vSim(key, X, { FILTER: '.n >' }), /^Error: ERR syntax error in FILTER expression near/);
    });

    test('gives a password', async () => {
      const socket = { host: HOST, port: LOCKED_PORT };
      for (const credentials of [{ password: PASSWORD }, { username: 'default', password: PASSWORD }]) {
        const locked = await connect({ socket, ...credentials });
        assert.equal(await locked.ping(), 'PONG');
      }
      const impatient = { ...socket, reconnectStrategy: false };
      await assert.rejects(connect({ socket: impatient, password: 'wrong' }), /WRONGPASS/);
      await assert.rejects(connect({ socket: impatient }).then((open) => open.ping()), /NOAUTH/);
    });

    test('shares a pool', async () => {
      const pool = await createClientPool({ socket: SOCKET, ...options }, { minimum: 2, maximum: 4 }).connect();
      const added = await Promise.all(Array.from({ length: 20 }, (_, i) => pool.vAdd(key, [1, i, 0], `e${i}`)));
      assert.ok(added.every(Boolean));
      assert.equal(await pool.vCard(key), 20);
      pool.destroy();
    });

    test('closes politely', async () => {
      const another = await connect();
      await Promise.all([another.ping(), another.close()]);
      assert.equal(another.isOpen, false);
    });
  });
}
