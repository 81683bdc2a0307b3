import type { Exchange } from '../../shared/exchange.ts';

/** The record of a plain exchange that went well. */
export function exchangeOf(id: number, more: Partial<Exchange> = {}): Exchange {
  return {
    id,
    startedAt: 0,
    kind: 'http',
    method: 'GET',
    url: `http://a.test/${id}`,
    host: 'a.test',
    site: 'a.test',
    because: { rule: 'default' },
    route: 'companion',
    filter: 'standard',
    cache: 'standard',
    attempts: [],
    status: 200,
    bytesUp: 1,
    bytesDown: 10,
    took: 1,
    ...more,
  };
}
