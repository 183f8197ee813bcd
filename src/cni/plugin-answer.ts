// Foreign world: what CNI plugins print, their results checked and their errors turned into Faults.
import { Fault } from "../lib/fault.ts";
import { type Cidr, cidrContains, cidrText, ipv4Number } from "./cidr.ts";
import { isRecord, records } from "./json.ts";

/** What an ADD gave. */
export interface Attached {
  readonly ip: string;
  /** The host's end of the pair, undefined when the plugin did not name it. */
  readonly hostInterface: string | undefined;
}

/**
 * Reads the result of an ADD (CNI spec 0.4 and 1.0, "Add Success"): the first IPv4 address in the subnet.
 * @throws Fault internal when there is none: an attachment without an address is no attachment
 */
export function parseResult(output: string, subnet: Cidr, bridge: string): Attached {
  const result = parse(output);
  const ip = records(result?.["ips"])
    .map((entry) => (typeof entry["address"] === "string" ? (entry["address"].split("/")[0] ?? "") : ""))
    .find((address) => {
      const number = ipv4Number(address);
      return number !== undefined && cidrContains(subnet, number);
    });
  if (ip === undefined) {
    throw new Fault("internal", `Cannot attach: the CNI plugin gave no address in ${cidrText(subnet)}`, {
      cause: new Error(output.slice(0, 2000)),
    });
  }
  const host = records(result?.["interfaces"]).find(
    (entry) => (entry["sandbox"] ?? "") === "" && entry["name"] !== bridge,
  );
  return { ip, hostInterface: typeof host?.["name"] === "string" ? host["name"] : undefined };
}

/** Versions of the CNI spec a plugin speaks, from its answer to VERSION. */
export function parseVersions(output: string): string[] {
  const versions: unknown = parse(output)?.["supportedVersions"];
  return Array.isArray(versions) ? versions.filter((version) => typeof version === "string") : [];
}

/** What a failed plugin means. Plugins print an error object on stdout (CNI spec, "Error"); broken ones anything. */
export function pluginFault(what: string, code: number, stdout: string, stderr: string): Fault {
  const error = parse(stdout);
  const words =
    error === undefined
      ? stderr.trim() || stdout.trim() || `it ended with ${code}`
      : [error["msg"], error["details"]].filter((text) => typeof text === "string" && text !== "").join("; ");
  const message = `${what}: ${words.slice(-1000)}`;
  if (/requested IP address .* is not available/i.test(words)) return new Fault("out_of_range", message);
  if (/no IP addresses available/i.test(words)) {
    return new Fault("resource_exhausted", message, {
      hint: "Delete bots that are not needed, or give network.subnet a larger range",
    });
  }
  if (/duplicate allocation|already exists|has been allocated/i.test(words)) {
    return new Fault("already_exists", message);
  }
  if (/operation not permitted|permission denied/i.test(words)) {
    return new Fault("permission_denied", message, { hint: "Run memoh host as root" });
  }
  if (/failed to find plugin|executable file not found/i.test(words)) {
    return new Fault("failed_precondition", message, {
      hint: "Install the package containernetworking-plugins",
    });
  }
  return new Fault("internal", message);
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
