// Makes and unmakes one attachment with the CNI plugin; whatever the plugin leaves behind is cleaned up by hand.
import { join } from "node:path";
import type { Wait } from "../core/workspace.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { throwIfAborted, withDeadline } from "../lib/signal.ts";
import { BOT_INTERFACE, lookInside } from "./inside.ts";
import { freeLeases, restoreLease } from "./leases.ts";
import { linkByIndex } from "./links.ts";
import type { Names } from "./names.ts";
import { createNetns, deleteNetns, ipInside, isNetns, netnsInode } from "./netns.ts";
import type { Observed } from "./observe.ts";
import type { BridgePlugin } from "./plugin.ts";
import type { Attached } from "./plugin-answer.ts";
import type { Ports } from "./ports.ts";

/** Milliseconds for cleaning up after a failure, whoever gave up. */
const CLEANUP = 15_000;

/** What an attachment is made with. */
export interface AttachParts {
  readonly names: Names;
  readonly ports: Ports;
  readonly plugin: BridgePlugin;
  readonly log: Logger;
  /** Bytes of the largest packet the way out takes. */
  readonly mtu: () => number;
}

/** Attaches and detaches containers. Calls for one container are serial: the caller sees to it. */
export class Attacher {
  readonly #parts: AttachParts;

  constructor(parts: AttachParts) {
    this.#parts = parts;
  }

  /** Puts right what can be while the bot runs. @returns false when it has to be made anew */
  async mend(containerId: string, seen: Observed, { signal }: Wait): Promise<boolean> {
    const { names, ports, log } = this.#parts;
    if (seen.broken.length > 0 || seen.port === undefined || seen.ip === undefined) return false;
    if (seen.mendable.length === 0) return true;
    try {
      if (!restoreLease(names.leaseDir, seen.ip, containerId, BOT_INTERFACE)) return false;
      ports.tag(seen.port.name, containerId, await netnsInode(this.#path(containerId)));
      await ports.mend(seen.port.name, signal);
    } catch (error) {
      throwIfAborted(signal);
      log.warn({ containerId, err: error }, "attachment could not be mended and is made anew");
      return false;
    }
    log.warn({ containerId, found: seen.mendable }, "attachment mended");
    return true;
  }

  /**
   * Makes the attachment, with the address it had if that is free. A namespace that is there is kept, because a bot may
   * be running in it.
   */
  async attach(containerId: string, seen: Observed, wait: Wait): Promise<string> {
    if (seen.exists) {
      this.#parts.log.warn({ containerId, found: seen.broken }, "attachment is made anew");
      await this.detach(containerId, wait);
    }
    const kept = seen.netns && (await this.#emptied(containerId, wait));
    if (!kept) await this.#renewNetns(containerId, wait);
    try {
      const attached = await this.#add(containerId, seen.ip, wait);
      await this.#claim(containerId, attached, wait);
      return attached.ip;
    } catch (error) {
      using limit = withDeadline(undefined, CLEANUP, `Cannot clean up after ${containerId}`);
      await this.detach(containerId, limit);
      if (!kept) await deleteNetns(this.#path(containerId), limit.signal);
      throw error;
    }
  }

  /**
   * Takes interface, port and lease away and leaves the namespace. Nothing of it fails for the plugin's sake: what the
   * plugin could not do is done by hand.
   */
  async detach(containerId: string, { signal }: Wait): Promise<void> {
    const { names, ports, plugin, log, mtu } = this.#parts;
    const path = this.#path(containerId);
    try {
      const netns = (await isNetns(path)) ? path : "";
      await plugin.del({ containerId, netns, mtu: mtu(), signal });
    } catch (error) {
      throwIfAborted(signal);
      log.warn({ containerId, err: error }, "the CNI plugin could not detach; cleaning up without it");
    }
    await ports.remove(containerId, signal);
    freeLeases(names.leaseDir, containerId);
  }

  #path(containerId: string): string {
    return join(this.#parts.names.netnsDir, containerId);
  }

  async #add(containerId: string, ip: string | undefined, wait: Wait): Promise<Attached> {
    const { plugin, log, mtu } = this.#parts;
    const call = { containerId, netns: this.#path(containerId), mtu: mtu(), signal: wait.signal };
    try {
      return await plugin.add({ ...call, ip });
    } catch (error) {
      if (!Fault.is(error, "already_exists", "out_of_range")) throw error;
      log.warn({ containerId, ip, err: error }, "attaching again after leftovers were in the way");
      await this.detach(containerId, wait);
      if (error.code === "out_of_range") return await plugin.add(call);
      if (!(await this.#emptied(containerId, wait))) await this.#renewNetns(containerId, wait);
      return await plugin.add({ ...call, ip });
    }
  }

  /** Makes the host's end ours: tagged, isolated, and seen to be so. */
  async #claim(containerId: string, attached: Attached, { signal }: Wait): Promise<void> {
    const { ports } = this.#parts;
    const path = this.#path(containerId);
    let name = attached.hostInterface;
    if (name === undefined) {
      const eth = (await lookInside(path, signal)).interface;
      name = eth === undefined ? undefined : linkByIndex(eth.peerIndex)?.name;
    }
    if (name === undefined)
      throw new Fault("internal", "Cannot attach: the plugin made no interface of the host");
    ports.tag(name, containerId, await netnsInode(path));
    await ports.mend(name, signal);
  }

  /** Makes a namespace that stays fit for an ADD. @returns false when it is not */
  async #emptied(containerId: string, { signal }: Wait): Promise<boolean> {
    const path = this.#path(containerId);
    try {
      const before = await lookInside(path, signal);
      const commands = before.loopbackUp ? [] : ["link set lo up"];
      if (before.interface !== undefined) commands.push(`link del dev ${BOT_INTERFACE}`);
      if (commands.length > 0) await ipInside(path, commands, signal);
      return true;
    } catch (error) {
      throwIfAborted(signal);
      this.#parts.log.warn({ containerId, err: error }, "the namespace cannot be used again");
      return false;
    }
  }

  async #renewNetns(containerId: string, { signal }: Wait): Promise<void> {
    const path = this.#path(containerId);
    await deleteNetns(path, signal);
    await createNetns(path, signal);
  }
}
