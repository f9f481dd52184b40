// Logs in with node-redis or ioredis as the environment says, and prints the user that the server took it for.

import { readFileSync } from 'node:fs';

const environment = process.env;
const tls = environment.VECDIS_TRANSPORT === 'tls';
const unix = environment.VECDIS_TRANSPORT === 'unix';
const ca = readFileSync(environment.VECDIS_AUTHORITY);
const port = Number(environment.VECDIS_PORT);
const host = tls ? 'localhost' : '127.0.0.1';
const username = environment.VECDIS_USER || undefined;
const password = environment.VECDIS_PASSWORD;

if (environment.VECDIS_PACKAGE === 'redis') {
  const { createClient } = await import('redis');
  const socket = unix ? { path: environment.VECDIS_SOCKET } : { host, port, ...(tls ? { tls: true, ca } : {}) };
  const client = createClient({ socket: { ...socket, reconnectStrategy: false }, username, password });
  client.on('error', (error) => console.error(error.message));
  await client.connect();
  console.log(await client.sendCommand(['ACL', 'WHOAMI']));
  client.destroy();
} else {
  const { default: Redis } = await import('ioredis');
  const door = unix ? { path: environment.VECDIS_SOCKET } : { host, port, ...(tls ? { tls: { ca } } : {}) };
  const client = new Redis({ ...door, username, password, retryStrategy: null, maxRetriesPerRequest: 0 });
  console.log(await client.call('ACL', 'WHOAMI'));
  client.disconnect();
}
