// File systems that are a view into the kernel and hold no files of anybody: trees do not carry them.
import { statfs } from "node:fs/promises";

/** Magic numbers of statfs(2). */
const PSEUDO = new Set([
  0x9fa0, // proc
  0x62656572, // sysfs
  0x27e0eb, // cgroup
  0x63677270, // cgroup2
  0x1cd1, // devpts
  0x64626720, // debugfs
  0x74726163, // tracefs
  0x73636673, // securityfs
  0x62656570, // configfs
  0xcafe4a11, // bpf
  0x6165676c, // pstore
  0x19800202, // mqueue
  0x65735543, // fusectl
  0x42494e4d, // binfmt_misc
]);

/** Whether a path is on one of them. */
export async function isPseudo(path: Buffer): Promise<boolean> {
  const { type } = await statfs(path);
  return PSEUDO.has(type);
}
