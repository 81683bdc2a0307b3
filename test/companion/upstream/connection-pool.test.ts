import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { ConfigSchema } from '../../../shared/config.ts';
import * as v from 'valibot';
import { ConnectionPool } from '../../../companion/upstream/connection-pool.ts';
import type { SentRequest, UpstreamConnection } from '../../../companion/upstream/upstream-connection.ts';
import { startRawOrigin } from '../../support/origin.ts';

const limits = v.parse(ConfigSchema, {}).limits;
const wait = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

const plainGet = (port: number): SentRequest => ({
  method: 'GET',
  headText: 'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
  framing: { kind: 'none' },
  body: null,
  upgrade: null,
  blame: { target: { host: '127.0.0.1', port }, hop: undefined },
  interim: null,
});

/** A pool with so many connections to one origin that have each served a request and wait. */
async function poolWith(count: number, perOrigin: number) {
  const origin = await startRawOrigin(async peer => {
    while (true) {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    }
  });
  const pool = new ConnectionPool(() => ({ ...limits, poolPerOrigin: perOrigin }), 10);
  const connections: UpstreamConnection[] = [];
  for (let i = 0; i < count; i++) {
    const socket = connect(origin.port, '127.0.0.1');
    await new Promise(resolve => socket.once('connect', resolve));
    connections.push(pool.adopt('key', socket, Buffer.alloc(0)));
  }
  for (const connection of connections) {
    await connection.exchange(plainGet(origin.port));
  }
  return {
    origin,
    pool,
    connections,
    async [Symbol.asyncDispose]() {
      pool.close();
      await origin[Symbol.asyncDispose]();
    },
  };
}

test('a pool keeps so many idle connections for one origin, the youngest first', async () => {
  await using world = await poolWith(4, 2);
  const { pool, connections } = world;
  expect(pool.counts).toEqual({ open: 2, idle: 2 });
  expect(pool.take('key', false)).toBe(connections[3]);
  expect(pool.take('key', false)).toBe(connections[2]);
  expect(pool.take('key', false)).toBeNull();
  expect(pool.take('other', false)).toBeNull();
});

test('a pool of one keeps one', async () => {
  await using world = await poolWith(3, 1);
  expect(world.pool.counts).toEqual({ open: 1, idle: 1 });
  expect(world.pool.take('key', false)).toBe(world.connections[2]);
  expect(world.pool.counts).toEqual({ open: 1, idle: 0 });
});

test('a connection that the origin closes leaves the pool', async () => {
  await using world = await poolWith(1, 8);
  for (const peer of world.origin.peers) peer.socket.end();
  for (let i = 0; i < 100 && world.pool.counts.open > 0; i++) await wait(10);
  expect(world.pool.counts).toEqual({ open: 0, idle: 0 });
  expect(world.pool.take('key', false)).toBeNull();
});

test('retiring closes what waits and leaves what runs', async () => {
  await using world = await poolWith(3, 8);
  const running = world.pool.take('key', false)!;
  world.pool.retire();
  expect(world.pool.counts).toEqual({ open: 1, idle: 0 });
  expect(running.usable).toBe(true);
});

test('a socket that speaks before it is asked is not taken in', async () => {
  await using world = await poolWith(0, 8);
  const socket = connect(world.origin.port, '127.0.0.1');
  await new Promise(resolve => socket.once('connect', resolve));
  expect(world.pool.adopt('key', socket, Buffer.from('HTTP/1.1 200 OK\r\n\r\n')).usable).toBe(false);
});

test('a server that closes after each answer, whatever it says, gets no upload on a connection that was kept', async () => {
  await using origin = await startRawOrigin(async peer => {
    await peer.readUntil('\r\n\r\n');
    peer.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    peer.end();
  });
  const pool = new ConnectionPool(() => limits, 10);
  try {
    const socket = connect(origin.port, '127.0.0.1');
    await new Promise(resolve => socket.once('connect', resolve));
    const first = pool.adopt('key', socket, Buffer.alloc(0));
    await first.exchange(plainGet(origin.port));
    while (pool.counts.open > 0) await wait(5);
    const other = connect(origin.port, '127.0.0.1');
    await new Promise(resolve => other.once('connect', resolve));
    await pool.adopt('key', other, Buffer.alloc(0)).exchange(plainGet(origin.port));
    // It may be there still for a moment: a GET may try it, for it can be sent again; a POST must not.
    expect(pool.take('key', true)).toBeNull();
  } finally {
    pool.close();
  }
});
