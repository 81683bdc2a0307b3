// A test as bars: what each hop of each chain took, all to one scale.
import type { TestBar } from './routes-state.ts';

export function Bars({ bars }: { bars: readonly TestBar[] }) {
  return (
    <ul class="bars" data-testid="bars" aria-live="polite">
      {bars.map(({ chain, ok, says, exit, reason, segments }) => (
        <li key={chain} data-ok={ok}>
          <p>
            <b>{chain}</b> <span class="says">{says}</span>
            {exit !== null && (
              <span class="exit">
                exit <code>{exit}</code>
              </span>
            )}
          </p>
          <div class="bar" aria-hidden="true">
            {segments.map((segment, i) => (
              <i key={i} style={{ width: `${segment.width}%` }} data-part={segment.isAnswer ? 'answer' : i % 4} />
            ))}
          </div>
          <ol>
            {segments.map(({ label, at, took, isAnswer }, i) => (
              <li key={i} data-part={isAnswer ? 'answer' : i % 4} title={at}>
                {label} {took}
              </li>
            ))}
          </ol>
          {reason !== null && <p class="hint">{reason}</p>}
        </li>
      ))}
    </ul>
  );
}
