// The few things that every JavaScript host has and the language library does not name. Only this folder's own
// compile sees this file; it is what keeps `shared` free of Node and of the browser.
declare class URL {
  constructor(url: string, base?: string);
  readonly href: string;
  readonly protocol: string;
  readonly hostname: string;
  readonly host: string;
  readonly port: string;
  readonly pathname: string;
  readonly search: string;
  readonly username: string;
  readonly password: string;
}
