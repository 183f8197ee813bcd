// Runs the CNI bridge plugin (https://www.cni.dev/docs/spec/): environment and JSON in, JSON out, a deadline around it.
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../lib/command.ts";
import { Fault } from "../lib/fault.ts";
import { SingleFlight } from "../lib/single-flight.ts";
import { cidrText } from "./cidr.ts";
import { BOT_INTERFACE } from "./inside.ts";
import type { Names } from "./names.ts";
import { type Attached, parseResult, parseVersions, pluginFault } from "./plugin-answer.ts";

/** Where distributions and people put the plugins: Debian, upstream's releases, Fedora, Arch. */
const PLUGIN_DIRS = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni", "/usr/local/lib/cni"];
/** What we speak, the best first. */
const VERSIONS = ["1.0.0", "0.4.0"];
/** Milliseconds for one call; it takes 20 when all is well. */
const LIMIT = 10_000;

/** One container's attachment, as the plugin is told. */
export interface PluginCall {
  readonly containerId: string;
  /** Empty when the namespace is gone (DEL only). */
  readonly netns: string;
  /** The address to ask for. */
  readonly ip?: string | undefined;
  readonly mtu: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Directory with the plugins we need.
 * @param configured where to look; empty looks in the usual places
 * @throws Fault failed_precondition naming the package
 */
export async function findPlugins(configured: string): Promise<string> {
  const places = configured === "" ? PLUGIN_DIRS : [configured];
  for (const dir of places) {
    const found = await Promise.all(["bridge", "host-local"].map(async (name) => runnable(join(dir, name))));
    if (found.every(Boolean)) return dir;
  }
  throw new Fault(
    "failed_precondition",
    `Cannot find the CNI plugins bridge and host-local in ${places.join(", ")}`,
    {
      hint: "Install the package containernetworking-plugins (apt-get install containernetworking-plugins), or set network.plugin_dir",
    },
  );
}

/** The bridge plugin of this host with host-local behind it. */
export class BridgePlugin {
  readonly #names: Names;
  readonly #configured: string;
  readonly #versions = new SingleFlight<string>();
  readonly #known = new Map<string, string>();

  /** @param configured the directory of the plugins; empty looks in the usual places */
  constructor(names: Names, configured: string) {
    this.#names = names;
    this.#configured = configured;
  }

  /** Directory with the plugins. @throws Fault failed_precondition naming the package */
  async directory(): Promise<string> {
    return await findPlugins(this.#configured);
  }

  /** The version of the CNI spec that is spoken with the plugins in the directory. */
  async version(dir: string): Promise<string> {
    const known = this.#known.get(dir);
    if (known !== undefined) return known;
    return await this.#versions.run(dir, async () => {
      const result = await runPlugin(dir, { CNI_COMMAND: "VERSION", CNI_PATH: dir }, "", undefined);
      const spoken = parseVersions(result.stdout);
      const version = VERSIONS.find((candidate) => spoken.includes(candidate));
      if (version === undefined) {
        throw new Fault(
          "failed_precondition",
          `Cannot use ${join(dir, "bridge")}: it speaks CNI ${spoken.join(", ") || "nothing we understand"}`,
          {
            hint: `Install CNI plugins that speak ${VERSIONS.join(" or ")} (containernetworking-plugins 0.9 or newer)`,
          },
        );
      }
      this.#known.set(dir, version);
      return version;
    });
  }

  /** Attaches. @throws Fault already_exists (leftovers), out_of_range (the address asked for is taken), others */
  async add(call: PluginCall): Promise<Attached> {
    const result = await this.#call("ADD", call);
    return parseResult(result.stdout, this.#names.subnet, this.#names.bridge);
  }

  /** Detaches and frees the address. @throws Fault */
  async del(call: PluginCall): Promise<void> {
    await this.#call("DEL", call);
  }

  async #call(command: "ADD" | "DEL", call: PluginCall): Promise<CommandResult> {
    const dir = await this.directory();
    const config = bridgeConfig(this.#names, await this.version(dir), call.mtu);
    const result = await runPlugin(
      dir,
      {
        CNI_COMMAND: command,
        CNI_CONTAINERID: call.containerId,
        CNI_NETNS: call.netns,
        CNI_IFNAME: BOT_INTERFACE,
        CNI_PATH: dir,
        ...(call.ip === undefined ? {} : { CNI_ARGS: `IgnoreUnknown=1;IP=${call.ip}` }),
      },
      JSON.stringify(config),
      call.signal,
    );
    if (result.code === 0) return result;
    const what = command === "ADD" ? "Cannot attach to the network" : "Cannot detach from the network";
    throw pluginFault(what, result.code, result.stdout, result.stderr);
  }
}

/** Network configuration for the bridge plugin alone: the host's rules are ours, so it never calls iptables. */
export function bridgeConfig(names: Names, cniVersion: string, mtu: number) {
  return {
    cniVersion,
    name: names.network,
    type: "bridge",
    bridge: names.bridge,
    isGateway: true,
    ipMasq: false,
    hairpinMode: false,
    // Ignored without a word before 1.2: the port is isolated again, and looked at, after the ADD.
    portIsolation: true,
    mtu,
    ipam: {
      type: "host-local",
      ranges: [[{ subnet: cidrText(names.subnet), gateway: names.gateway }]],
      routes: [{ dst: "0.0.0.0/0" }],
      dataDir: names.stateDir,
    },
  };
}

async function runPlugin(
  dir: string,
  env: Readonly<Record<string, string>>,
  input: string,
  signal: AbortSignal | undefined,
): Promise<CommandResult> {
  return await runCommand([join(dir, "bridge")], {
    env,
    input,
    group: true,
    timeoutMs: LIMIT,
    ...(signal === undefined ? {} : { signal }),
  });
}

async function runnable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
