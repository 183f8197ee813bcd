// IPv4 addresses and ranges as numbers: parse, compare, print.
import { isIPv4 } from "node:net";
import { Fault } from "../lib/fault.ts";

/** An IPv4 range. `network` is its first address as an unsigned 32-bit number. */
export interface Cidr {
  readonly network: number;
  readonly bits: number;
}

/** Where clouds keep their metadata services, and what no bot may reach. */
export const LINK_LOCAL: Cidr = { network: 0xa9fe0000, bits: 16 };

/** An IPv4 address as a number, undefined when the text is not one. */
export function ipv4Number(text: string): number | undefined {
  if (!isIPv4(text)) return undefined;
  return text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** `10.88.0.1` */
export function ipv4Text(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

/** `10.88.0.0/16` */
export function cidrText(cidr: Cidr): string {
  return `${ipv4Text(cidr.network)}/${cidr.bits}`;
}

/** The range of `bits` around an address. */
export function cidrAround(address: number, bits: number): Cidr {
  return { network: (address & maskOf(bits)) >>> 0, bits };
}

/**
 * A range from `a.b.c.d/n`; a bare address is a range of one.
 * @throws Fault invalid_argument when it is not one, or when bits are set behind the prefix
 */
export function parseCidr(text: string): Cidr {
  const [address = "", prefix = "32", ...rest] = text.split("/");
  const number = ipv4Number(address);
  const bits = /^\d{1,2}$/.test(prefix) ? Number(prefix) : 33;
  if (number === undefined || bits > 32 || rest.length > 0) {
    throw new Fault("invalid_argument", `Cannot use ${JSON.stringify(text)} as an IPv4 range`, {
      hint: "Write a range such as 10.88.0.0/16",
    });
  }
  const range = cidrAround(number, bits);
  if (range.network !== number) {
    throw new Fault("invalid_argument", `Cannot use ${text} as an IPv4 range: it starts inside the range`, {
      hint: `Write ${cidrText(range)}`,
    });
  }
  return range;
}

/** Whether the address lies in the range. */
export function cidrContains(cidr: Cidr, address: number): boolean {
  return (address & maskOf(cidr.bits)) >>> 0 === cidr.network;
}

/** Whether the ranges share an address. */
export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  const [wide, narrow] = a.bits <= b.bits ? [a, b] : [b, a];
  return cidrContains(wide, narrow.network);
}

function maskOf(bits: number): number {
  return bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0;
}
