// What is said of the attempts of one exchange.
import { expect, test } from 'vitest';
import type { Attempt } from '../../shared/exchange.ts';
import { ladderText, outcomeText } from '../../shared/ladder.ts';

const attempt = (chain: string[], more: Partial<Attempt>): Attempt => ({
  chain,
  outcome: 'ok',
  stage: 'response',
  hops: [],
  took: 132.4,
  ...more,
});

test('attempts are one line, with the time of the last', () => {
  const attempts = [attempt(['office'], { outcome: 'hop_refused', sign: 'policy' }), attempt(['squid', 'tor'], {})];
  expect(ladderText(attempts)).toBe('office: refused (policy) → squid > tor: ok, 132 ms');
  expect(ladderText([attempt([], { outcome: 'connection_timeout' })])).toBe('companion: timed out, 132 ms');
});

test('a sign says more than the fault, and a fault without words of its own is said as it is called', () => {
  expect(outcomeText({ outcome: 'connection_terminated', sign: 'reset' })).toBe('broke off');
  expect(outcomeText({ outcome: 'http_protocol_error' })).toBe('http protocol error');
  expect(outcomeText({ outcome: 'ok', sign: 'policy', verdict: 'unknown' })).toBe('a no, nobody knows by whom');
  expect(outcomeText({ outcome: 'ok', verdict: 'origin' })).toBe('ok');
});
