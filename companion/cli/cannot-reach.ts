/** No companion runs that could be asked. The message says how to start one. */
export class CannotReach extends Error {}
