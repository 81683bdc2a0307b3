// A person's own rows of the refusal table: how the no of a proxy looks that nobody else knows of. They are asked before the built-in ones.
import * as v from 'valibot';
import { count, described, strict, text } from './words.ts';

/** Rows that a file may have. */
const MAX_SIGNATURES = 100;
/** What is looked for may be so long. */
const MAX_MATCH = 200;

/** What a row makes of a no. */
const SIGNS = ['policy', 'rate', 'auth', 'unreachable', 'portal'] as const;

/** Every condition that is written must hold. Texts are compared without regard to case. */
export interface OwnSignature {
  readonly name: string;
  readonly status: readonly number[];
  /** Lower case. */
  readonly field?: string | undefined;
  readonly match?: string | undefined;
  readonly page?: string | undefined;
  readonly who: 'proxy' | 'origin';
  readonly sign?: (typeof SIGNS)[number] | undefined;
}

const looked = v.pipe(
  text(),
  v.nonEmpty('is empty'),
  v.maxLength(MAX_MATCH, `is longer than ${MAX_MATCH} characters`),
  v.transform(one => one.toLowerCase()),
);
const fieldName = v.pipe(
  text(),
  v.regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/, 'is not the name of a field, like X-Corp-Block'),
  v.transform(one => one.toLowerCase()),
);

const SignatureSchema = v.pipe(
  strict(
    {
      name: described(v.pipe(text(), v.nonEmpty('is empty'), v.maxLength(40, 'is too long')), 'What the log calls it.'),
      status: described(
        v.pipe(
          v.array(count(200, 599), 'is not a list of statuses: write [403]'),
          v.minLength(1, 'has no status'),
          v.maxLength(32, 'has more than 32 statuses'),
        ),
        'The statuses that it may come with.',
      ),
      field: v.optional(described(fieldName, 'A header field that the answer has.')),
      match: v.optional(described(looked, 'Text that this field contains; absent: whatever it says.')),
      page: v.optional(described(looked, 'Text within the first 4 KiB of the answer.')),
      who: v.optional(
        described(v.picklist(['proxy', 'origin'], 'is neither proxy nor origin'), 'Who says so, then.'),
        'proxy',
      ),
      sign: v.optional(
        described(
          v.picklist(SIGNS, `is not a sign: ${SIGNS.slice(0, -1).join(', ')} or ${SIGNS.at(-1)}`),
          'What it means; absent: what its status does.',
        ),
      ),
    },
    'is not a signature: write it like { name: corp, status: [403], field: X-Corp-Block }',
  ),
  v.check(({ field, match }) => match === undefined || field !== undefined, 'has a match, but no field to look in'),
  v.check(
    ({ field, page }) => field !== undefined || page !== undefined,
    'says neither a field nor a page to know it by',
  ),
);

export const SignaturesSchema = v.pipe(
  v.array(SignatureSchema as v.GenericSchema<unknown, OwnSignature>, 'is not a list of signatures'),
  v.maxLength(MAX_SIGNATURES, `has more than ${MAX_SIGNATURES} rows`),
);
