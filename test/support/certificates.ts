// A certificate authority of one test run, made in memory and written only into the temporary folder that is asked for.
import { writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(crypto);
const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY = 24 * 60 * 60 * 1000;

export interface TestAuthority {
  /** The authority's certificate in PEM. */
  readonly pem: string;
  /** Key and certificate in PEM for these DNS names. */
  issue(...names: string[]): Promise<{ key: string; cert: string }>;
  /** The same with what is unusual: it has expired, or is for a client. Addresses may be among the names. */
  issueAs(what: { expired?: boolean; client?: boolean }, ...names: string[]): Promise<{ key: string; cert: string }>;
  /** Writes the certificate for tools that want a file. */
  writeTo(file: string): Promise<string>;
}

// Inferred from the call: Node and the DOM name the type of a key pair differently.
const makeKeys = () => crypto.subtle.generateKey(EC, true, ['sign', 'verify']);

/** Makes a fresh authority; nothing trusts it until a test says so. */
export async function makeTestAuthority(): Promise<TestAuthority> {
  const keys = await makeKeys();
  const name = 'CN=Detour test authority';
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '01',
    name,
    notBefore: new Date(Date.now() - DAY),
    notAfter: new Date(Date.now() + 30 * DAY),
    signingAlgorithm: EC,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 1, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  const pem = root.toString('pem');
  let serial = 2;
  const issueAs: TestAuthority['issueAs'] = async ({ expired = false, client = false }, ...names) => {
    const leafKeys = await makeKeys();
    const leaf = await x509.X509CertificateGenerator.create({
      serialNumber: (serial++).toString(16).padStart(2, '0'),
      subject: `CN=${names[0]}`,
      issuer: name,
      notBefore: new Date(Date.now() - DAY),
      notAfter: new Date(Date.now() + (expired ? -1 : 20 * DAY)),
      signingAlgorithm: EC,
      publicKey: leafKeys.publicKey,
      signingKey: keys.privateKey,
      extensions: [
        new x509.SubjectAlternativeNameExtension(
          names.map(value => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value })),
        ),
        new x509.ExtendedKeyUsageExtension([
          client ? x509.ExtendedKeyUsage.clientAuth : x509.ExtendedKeyUsage.serverAuth,
        ]),
      ],
    });
    const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', leafKeys.privateKey)).toString('base64');
    const key = `-----BEGIN PRIVATE KEY-----\n${der.replace(/.{64}/g, '$&\n')}\n-----END PRIVATE KEY-----\n`;
    return { key, cert: `${leaf.toString('pem')}\n${pem}\n` };
  };
  return {
    pem,
    issue: (...names) => issueAs({}, ...names),
    issueAs,
    async writeTo(file) {
      await writeFile(file, `${pem}\n`);
      return file;
    },
  };
}
