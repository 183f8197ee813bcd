// The host's ends of the bots' veth pairs, known by a tag that the kernel keeps with the interface.

import { Fault } from "../lib/fault.ts";
import { hostCommand } from "./host-command.ts";
import { aliasOf, isolatePort, type Link, linkNames, readLink, setAlias } from "./links.ts";
import type { Names } from "./names.ts";

/** A port and what its tag says. */
export interface Port {
  readonly link: Link;
  /** Inode of the namespace the other end is in, as `/proc/<pid>/ns/net` shows it. */
  readonly netnsInode: string;
}

/** Ports of one instance. The tag is `memoh:<instance>/<container id>#<inode of the namespace>`. */
export class Ports {
  readonly #names: Names;
  /** Where each was seen last, checked before it is believed: a scan reads every interface of the host. */
  #seen = new Map<string, string>();

  constructor(names: Names) {
    this.#names = names;
  }

  /** The port of a container, wherever it is attached. */
  find(containerId: string): Port | undefined {
    return this.#read(containerId) ?? (this.all().has(containerId) ? this.#read(containerId) : undefined);
  }

  /** Interface names of all ports by container id. */
  all(): ReadonlyMap<string, string> {
    const seen = new Map<string, string>();
    for (const name of linkNames()) {
      const id = this.#idOf(aliasOf(name));
      if (id !== undefined) seen.set(id, name);
    }
    this.#seen = seen;
    return seen;
  }

  /** Marks an interface as the port of a container. */
  tag(name: string, containerId: string, netnsInode: string): void {
    setAlias(name, `${this.#names.tag}/${containerId}#${netnsInode}`);
    this.#seen.set(containerId, name);
  }

  /** Removes the container's port, and with it the other end. Nothing there is success. */
  async remove(containerId: string, signal?: AbortSignal): Promise<void> {
    const port = this.find(containerId);
    this.#seen.delete(containerId);
    if (port === undefined) return;
    try {
      await hostCommand(["ip", "link", "del", "dev", port.link.name], { signal });
    } catch (error) {
      // The kernel takes the pair away by itself when the namespace of one end ends.
      if (readLink(port.link.name)?.index === port.link.index) throw error;
    }
  }

  /** What keeps a port from carrying its bot's traffic, and only that. Empty when it is right. */
  faults(link: Link): string[] {
    const faults: string[] = [];
    if (link.master !== this.#names.bridge) faults.push(`port ${link.name} was off the bridge`);
    if (!link.up) faults.push(`port ${link.name} was down`);
    if (link.isolated !== true) faults.push(`port ${link.name} was not isolated`);
    return faults;
  }

  /**
   * Puts a port on the bridge, up and isolated, and looks again. Runs no program when only the isolation is missing,
   * as after every ADD of a plugin that ignores the option.
   * @throws Fault when it is not right afterwards
   */
  async mend(name: string, signal?: AbortSignal): Promise<void> {
    const before = readLink(name);
    if (before !== undefined && (before.master !== this.#names.bridge || !before.up)) {
      const { bridge } = this.#names;
      await hostCommand(["ip", "link", "set", "dev", name, "master", bridge, "up"], { signal });
    }
    if (readLink(name)?.isolated === false) isolatePort(name);
    const after = readLink(name);
    const faults = after === undefined ? [`port ${name} is gone`] : this.faults(after);
    if (faults.length > 0) throw new Fault("internal", `Cannot mend the port of a bot: ${faults.join(", ")}`);
  }

  #read(containerId: string): Port | undefined {
    const name = this.#seen.get(containerId);
    const link = name === undefined ? undefined : readLink(name);
    if (link === undefined || this.#idOf(link.alias) !== containerId) return undefined;
    return { link, netnsInode: link.alias.slice(link.alias.indexOf("#") + 1) };
  }

  #idOf(alias: string): string | undefined {
    const prefix = `${this.#names.tag}/`;
    if (!alias.startsWith(prefix)) return undefined;
    return alias.slice(prefix.length).split("#", 1)[0];
  }
}
