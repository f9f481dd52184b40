// ioredis: its vector-set methods and raw commands, with the default protocol, RESP2, RESP3 with its own reply types, and
// automatic pipelines.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';

import { Redis, ReplyError } from 'ioredis';

import { assertClose, BINARY_NAME, event, fp32, HOST, LOCKED_PORT, newKey, PASSWORD, PORT } from './support.js';
import { RIGHT_ANGLE, TEST_MAX } from './support.js';

for (const [name, options] of [
  ['default options', {}],
  ['RESP2', { protocol: 2 }],
  ['RESP3 with its types', { protocol: 3, replyMapping: 'resp3' }],
  ['automatic pipelines', { enableAutoPipelining: true }],
]) {
  const protocol = options.protocol ?? 3;
  // Only this mapping shows maps and doubles as such; the other gives flat arrays and text.
  const typed = options.replyMapping === 'resp3';
  const pairs = (reply) => (typed ? Object.entries(reply).flat() : reply);

  describe(`ioredis, ${name}`, TEST_MAX, () => {
    let client, key, created;

    const create = (extra = {}) => {
      const another = new Redis({ host: HOST, port: PORT, ...options, ...extra });
      another.on('error', () => {});
      created.push(another);
      return another;
    };

    beforeEach(() => {
      created = [];
      client = create();
      key = newKey();
    });

    afterEach(async () => {
      await client.del(key);
      // An open connection would keep node from ending.
      created.forEach((each) => each.disconnect());
    });

    const fill = async () => {
      assert.equal(Number(await client.vadd(key, 'VALUES', 3, 1, 0, 0, 'a', 'SETATTR', '{"n":1}')), 1);
      assert.equal(Number(await client.vadd(key, 'FP32', fp32([0, 1, 0]), 'b')), 1);
      assert.equal(Number(await client.vadd(key, 'VALUES', 3, 2, 1, 0, 'c', 'SETATTR', '{"n":2}')), 1);
    };

    test('says hello and pings', async () => {
      assert.equal(await client.ping(), 'PONG');
      assert.equal(await client.echo('again'), 'again');
      const hello = pairs(await client.hello(protocol));
      const field = (wanted) => hello[hello.indexOf(wanted) + 1];
      assert.deepEqual([field('server'), field('proto'), field('role')], ['redis', protocol, 'master']);
      assert.equal(field('id'), await client.client('ID'));
      assert.match(await client.info('server'), /^redis_version:\d+\.\d+/m);
      assert.match(await client.client('INFO'), /lib-name=ioredis/);
    });

    test('has a name and a database', async () => {
      const named = create({ connectionName: 'suite', db: 0 });
      assert.equal(await named.client('GETNAME'), 'suite');
      assert.equal(await named.select(0), 'OK');
    });

    test('adds and searches', async () => {
      await fill();
      assert.equal(Number(await client.vadd(key, 'VALUES', 3, 1, 0, 0, 'a')), 0);
      assert.deepEqual(await client.vsim(key, 'VALUES', 3, 1, 0, 0), ['a', 'c', 'b']);
      assert.deepEqual(await client.vsim(key, 'FP32', fp32([0, 1, 0]), 'COUNT', 1), ['b']);
      assert.deepEqual(await client.vsim(key, 'ELE', 'a', 'FILTER', '.n > 1', 'TRUTH'), ['c']);
      const scores = pairs(await client.vsim(key, 'VALUES', 3, 1, 0, 0, 'WITHSCORES'));
      assert.deepEqual([scores[0], scores[2], scores[4]], ['a', 'c', 'b']);
      assert.equal(typeof scores[1], typed ? 'number' : 'string');
      assertClose([Number(scores[1]), Number(scores[5])], [1, RIGHT_ANGLE], 1e-3);
      const attributes = pairs(await client.vsim(key, 'VALUES', 3, 1, 0, 0, 'WITHATTRIBS'));
      assert.deepEqual(attributes, ['a', '{"n":1}', 'c', '{"n":2}', 'b', null]);
      assert.deepEqual(await client.vsim(newKey(), 'VALUES', 3, 1, 0, 0), []);
      assert.deepEqual(pairs(await client.vsim(key, 'ELE', 'a', 'WITHSCORES', 'FILTER', '.n > 9')), []);
    });

    test('reads and changes elements', async () => {
      await fill();
      assert.deepEqual([await client.vcard(key), await client.vdim(key), await client.vcard(newKey())], [3, 3, 0]);
      assertClose((await client.vemb(key, 'c')).map(Number), [2, 1, 0]);
      assert.equal(await client.vemb(key, 'none'), null);
      assert.deepEqual([await client.vgetattr(key, 'a'), await client.vgetattr(key, 'b')], ['{"n":1}', null]);
      assert.equal(Number(await client.vsetattr(key, 'b', '{"n":3}')), 1);
      assert.equal(await client.vgetattr(key, 'b'), '{"n":3}');
      assert.deepEqual([await client.vismember(key, 'b'), await client.vismember(key, 'none')].map(Number), [1, 0]);
      assert.deepEqual([await client.vrem(key, 'b'), await client.vrem(key, 'b')].map(Number), [1, 0]);
      assert.deepEqual([await client.type(key), await client.exists(key), await client.del(key)], ['vectorset', 1, 1]);
      assert.equal(await client.vinfo(key), null);
    });

    test('tells about sets', async () => {
      await fill();
      const info = pairs(await client.vinfo(key));
      const field = (wanted) => info[info.indexOf(wanted) + 1];
      assert.deepEqual([field('quant-type'), field('vector-dim'), field('size')], ['int8', 3, 3]);
      const [kind, , norm] = await client.vemb(key, 'c', 'RAW');
      assert.equal(kind, 'int8');
      assertClose([Number(norm)], [Math.sqrt(5)], 1e-3);
    });

    test('lists members and links', async () => {
      await fill();
      assert.ok(['a', 'b', 'c'].includes(await client.vrandmember(key)));
      assert.deepEqual((await client.vrandmember(key, 5)).sort(), ['a', 'b', 'c']);
      assert.ok(Array.isArray(await client.vlinks(key, 'a')));
      assert.equal(await client.vlinks(key, 'none'), null);
    });

    test('lists ranges', async () => {
      await fill();
      assert.deepEqual(await client.vrange(key, '-', '+'), ['a', 'b', 'c']);
      assert.deepEqual(await client.vrange(key, '[b', '+', 1), ['b']);
    });

    test('keeps binary vectors and names', async () => {
      const vector = fp32([0.5, -1, 2]);
      assert.equal(Number(await client.call('VADD', key, 'FP32', vector, BINARY_NAME, 'NOQUANT')), 1);
      assert.equal(Number(await client.call('vismember', key, BINARY_NAME)), 1);
      assert.deepEqual(await client.vsimBuffer(key, 'FP32', vector), [BINARY_NAME]);
      const [kind, bytes, norm] = await client.vembBuffer(key, BINARY_NAME, 'RAW');
      assert.equal(kind.toString(), 'f32');
      const unit = [0, 4, 8].map((at) => bytes.readFloatLE(at));
      assertClose(unit.map((component) => component * Number(norm)), [0.5, -1, 2], 1e-5);
    });

    test('runs transactions', async () => {
      const replies = await client.multi().vadd(key, 'VALUES', 2, 1, 0, 'a').vcard(key).vsim(key, 'ELE', 'a').exec();
      assert.deepEqual(replies.map(([error]) => error), [null, null, null]);
      assert.deepEqual(replies.slice(1).map(([, reply]) => reply), [1, ['a']]);
      const [[first], [second, card]] = await client.multi().vadd(key, 'VALUES', 1, 1, 'b').vcard(key).exec();
      assert.ok(first instanceof ReplyError && second === null && card === 1);
      await assert.rejects(client.multi().call('NOSUCH').exec(), /EXECABORT/);

      const other = create();
      // Automatic pipelines are not for WATCH: another command may come between.
      const watching = create({ enableAutoPipelining: false });
      await watching.watch(key);
      await other.vadd(key, 'VALUES', 2, 0, 1, 'b');
      assert.equal(await watching.multi().vrem(key, 'a').exec(), null);
      assert.equal(await client.vcard(key), 2);
    });

    test('pipelines', async () => {
      const pipeline = client.pipeline();
      for (let i = 0; i < 1000; i++) pipeline.vadd(key, 'FP32', fp32([1, i, 1]), `e${i}`);
      const added = await pipeline.exec();
      assert.ok(added.length === 1000 && added.every(([error, reply]) => error === null && Number(reply) === 1));
      const found = await Promise.all(Array.from({ length: 200 }, () => client.vsim(key, 'ELE', 'e0', 'COUNT', 1)));
      assert.ok(found.every(([best]) => best === 'e0'));
      const [[, pong], [error], [, card]] = await client.pipeline().ping().call('NOSUCH').vcard(key).exec();
      assert.deepEqual([pong, card], ['PONG', 1000]);
      assert.match(error.message, /^ERR unknown command/);
    });

    test('iterates over keys', async () => {
      const keys = Array.from({ length: 50 }, (_, i) => `${key}:${i}`);
      await Promise.all(keys.map((each) => client.vadd(each, 'VALUES', 1, 1, 'a')));
      const found = new Set();
      for await (const some of client.scanStream({ match: `${key}:*`, count: 7, type: 'vectorset' })) {
        some.forEach((each) => found.add(each));
      }
      assert.deepEqual([...found].sort(), [...keys].sort());
      assert.equal(await client.unlink(...keys), keys.length);
    });

    test('puts a prefix before keys', async () => {
      const prefixed = create({ keyPrefix: `${key}:` });
      assert.equal(Number(await prefixed.vadd('k', 'VALUES', 1, 1, 'a')), 1);
      assert.equal(await client.vcard(`${key}:k`), 1);
      assert.equal(await prefixed.del('k'), 1);
    });

    test('connects again after CLIENT KILL', async () => {
      const killer = create();
      await client.vadd(key, 'VALUES', 1, 1, 'a');
      const id = await client.client('ID');
      const again = event(client, 'ready');
      assert.equal(await killer.client('KILL', 'ID', id), 1);
      await again;
      assert.notEqual(await client.client('ID'), id);
      assert.equal(await client.vcard(key), 1);
    });

    test('shows the texts of errors', async () => {
      await fill();
      const refused = (command, message) =>
        assert.rejects(client.call(...command), (error) => error instanceof ReplyError && error.message === message);
      await refused(['VADD', key, 'VALUES', 2, 1, 0, 'd'], 'ERR Vector dimension mismatch - got 2 but set has 3');
      await refused(['VADD', key, 'FP32', 'odd', 'd'], 'ERR invalid vector specification');
      await refused(['VADD', key], "ERR wrong number of arguments for 'VADD' command");
      await refused(['VSIM', key, 'ELE', 'none'], 'ERR element not found in set');
      await refused(['VDIM', newKey()], 'ERR key does not exist');
      await refused(['NOSUCH', 'a'], "ERR unknown command 'NOSUCH', with args beginning with: 'a' ");
    });

    test('gives a password', async () => {
      for (const credentials of [{ password: PASSWORD }, { username: 'default', password: PASSWORD }]) {
        const locked = create({ port: LOCKED_PORT, ...credentials });
        assert.equal(await locked.ping(), 'PONG');
      }
      // The first command may meet the refused handshake or the server's answer to itself.
      const impatient = { port: LOCKED_PORT, maxRetriesPerRequest: 0, retryStrategy: null };
      for (const [credentials, message] of [[{ password: 'wrong' }, /WRONGPASS|NOAUTH/], [{}, /NOAUTH/]]) {
        const refused = create({ ...impatient, ...credentials });
        await assert.rejects(refused.ping(), message);
      }
    });

    test('closes politely', async () => {
      const another = create();
      await another.ping();
      assert.equal(await another.quit(), 'OK');
    });
  });
}
