// TLS trust: a registry signed by a CA of this machine is trusted, as by every other program of it.
import tls from "node:tls";

let options: RequestInit | undefined;

/**
 * What fetch needs for https so that it trusts the machine's CAs beside the runtime's own. They are read once, at the
 * first use. Node takes them as default of the whole process, Bun's fetch only request by request.
 */
export function systemTrust(): RequestInit {
  options ??= trusting([
    ...new Set([...tls.getCACertificates("default"), ...tls.getCACertificates("system")]),
  ]);
  return options;
}

function trusting(ca: string[]): RequestInit {
  if (process.versions["bun"] !== undefined) return { tls: { ca } } as RequestInit;
  tls.setDefaultCACertificates(ca);
  return {};
}
