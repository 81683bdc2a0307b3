// What every part of the route editor is made of: a field with its fault, and the hands that carry wishes out.
import type { ComponentChildren } from 'preact';
import type { ChainTest } from '../../shared/ways.ts';
import type { Answer, WaysRequest } from '../control/messages.ts';

/** What every part of the editor may ask for. */
export interface Hands {
  /** Carries out an edit of the file; what is shown is then what the file says. */
  readonly edit: (request: WaysRequest) => Promise<Answer>;
  readonly test: (request: WaysRequest) => Promise<ChainTest[] | string>;
}

/** A field with its name above it, and what is wrong with it below. */
export function Field({
  id,
  label,
  problem,
  wide,
  children,
}: {
  id: string;
  label: string;
  problem: string | null;
  wide?: boolean;
  children: ComponentChildren;
}) {
  return (
    <div class={wide ? 'field wide' : 'field'} data-wrong={problem !== null}>
      <label for={id}>{label}</label>
      {children}
      {problem !== null && (
        <p class="error" role="alert">
          {problem}
        </p>
      )}
    </div>
  );
}
