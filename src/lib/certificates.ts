// X.509 certificates: makes a CA, signs leaves with it and reads them back. Loads a parser; import it where it is used.
import "reflect-metadata";
import { createPrivateKey, randomBytes, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { Fault } from "./fault.ts";

/** A certificate with its private key, both PEM (PKCS#8). */
export interface KeyPair {
  readonly certificate: string;
  readonly privateKey: string;
}

/** What a CA is called and how long it lasts. */
export interface CaDescription {
  readonly commonName: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** What a leaf says. */
export interface LeafDescription {
  readonly commonName: string;
  /** A free text beside the name, for people who read the certificate. */
  readonly unit?: string;
  /** The only thing the key may be used for. */
  readonly usage: "server" | "client";
  readonly dnsNames?: readonly string[];
  readonly notBefore: Date;
  readonly notAfter: Date;
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const USAGES: readonly webcrypto.KeyUsage[] = ["sign", "verify"];

x509.cryptoProvider.set(webcrypto);

/** Makes a self-signed CA that may sign leaves and nothing else. ECDSA P-256. */
export async function makeCa(description: CaDescription): Promise<KeyPair> {
  const keys = await generateKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: nameOf(description.commonName),
    notBefore: description.notBefore,
    notAfter: description.notAfter,
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return await pem(certificate, keys.privateKey);
}

/** Makes a new key and signs a certificate for it. */
export async function signLeaf(ca: KeyPair, leaf: LeafDescription): Promise<KeyPair> {
  const keys = await generateKeys();
  const issuer = new x509.X509Certificate(ca.certificate);
  const usage = leaf.usage === "server" ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
  const names = (leaf.dnsNames ?? []).map((value) => ({ type: "dns" as const, value }));
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: nameOf(leaf.commonName, leaf.unit),
    issuer: issuer.subjectName,
    notBefore: leaf.notBefore,
    notAfter: leaf.notAfter,
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: await importKey(ca.privateKey),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([usage], true),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return await pem(certificate, keys.privateKey);
}

async function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(ALGORITHM, true, USAGES);
}

/** A PKCS#8 PEM as the key that signs. @throws Fault data_loss */
async function importKey(privateKey: string): Promise<webcrypto.CryptoKey> {
  try {
    const der = createPrivateKey(privateKey).export({ type: "pkcs8", format: "der" });
    return await webcrypto.subtle.importKey("pkcs8", der, ALGORITHM, false, ["sign"]);
  } catch (error) {
    throw new Fault("data_loss", "Cannot use the private key of the CA: it is not an ECDSA P-256 key", {
      cause: error,
    });
  }
}

async function pem(certificate: x509.X509Certificate, key: webcrypto.CryptoKey): Promise<KeyPair> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  const body = der.toString("base64").replaceAll(/(.{64})(?=.)/g, "$1\n");
  return {
    certificate: `${certificate.toString("pem")}\n`,
    privateKey: `-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----\n`,
  };
}

/** 127 random bits: positive, and never the same twice. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x01;
  return bytes.toString("hex");
}

/** Values are data here, never parsed as a distinguished name. */
function nameOf(commonName: string, unit?: string): x509.Name {
  return new x509.Name([{ CN: [commonName] }, ...(unit === undefined ? [] : [{ OU: [unit] }])]);
}
