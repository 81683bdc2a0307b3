// The matcher for Firefox's per-request listener, as data that JSON carries. (Contract; the compiler follows.)

/** JSON data; read it with `openTable`. */
export interface SteeringTable {
  readonly format: 1;
  readonly [more: string]: unknown;
}
