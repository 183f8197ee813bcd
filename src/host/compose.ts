// The composition root: the only file that knows every room. It makes the parts of a host and starts them in order.
import { access, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { CniNetwork } from "../cni/network.ts";
import { readResolvConf } from "../cni/resolv-conf.ts";
import type { HostConfig } from "../config/host-config.ts";
import { ContainerdClient } from "../containerd/client.ts";
import { ContainerdImages } from "../containerd/images/image-store.ts";
import { ManagedContainerd } from "../containerd/managed-containerd.ts";
import { ContainerdRuntime } from "../containerd/runtime.ts";
import { AGENT_PORT } from "../core/bot-id.ts";
import type { Store } from "../core/store.ts";
import { type HttpService, serve } from "../http/serve.ts";
import { buildInfo } from "../lib/build-info.ts";
import { Fault } from "../lib/fault.ts";
import type { Logger } from "../lib/log.ts";
import { Addresses } from "../remote/addresses.ts";
import { Pool } from "../remote/pool.ts";
import { forceVersion, migrateDown, migrateUp, migrationState } from "../store/migrate.ts";
import { openStore } from "../store/open-store.ts";
import { findPrivatePostgres, openPrivatePostgres, type PrivatePostgres } from "../store/private-postgres.ts";
import { type DatabaseTarget, parseDatabaseUrl } from "../store/target.ts";
import { type AgentBundle, ensureAgentBundle } from "./agent-bundle.ts";
import { BotFiles } from "./bot-files.ts";
import { HostControlPlane } from "./control-plane.ts";
import { requireDiskSpace } from "./disk.ts";
import { Lifecycle } from "./lifecycle.ts";
import { machineChecks } from "./machine-check.ts";
import { type Part, Parts } from "./parts.ts";
import { Pki } from "./pki.ts";
import { Reconciler } from "./reconciler.ts";
import { Tending } from "./tending.ts";
import { Tokens } from "./tokens.ts";

/** A host that serves. Disposing stops it; bots, containerd and Postgres go on. */
export interface Host extends AsyncDisposable {
  readonly http: HttpService;
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

/** memoh's own containerd of an instance. */
export function managedContainerd(config: HostConfig, log: Logger): ManagedContainerd {
  return new ManagedContainerd({
    rootDir: join(config.dataDir, "containerd"),
    stateDir: join(config.runDir, "containerd"),
    log: log.child({ room: "containerd" }),
  });
}

/** The containerd socket of an instance. */
export function containerdSocket(config: HostConfig): string {
  const { socketPath } = config.containerd;
  return socketPath === "" ? join(config.runDir, "containerd", "containerd.sock") : socketPath;
}

/** The network of an instance. */
export function networkOf(config: HostConfig, log: Logger): CniNetwork {
  return new CniNetwork({
    instance: config.instance,
    bridge: config.network.bridge,
    subnet: config.network.subnet,
    runDir: config.runDir,
    pluginDir: config.network.pluginDir,
    deny: config.network.deny,
    log,
  });
}

/** The images of an instance. */
export function imagesOf(config: HostConfig, client: ContainerdClient): ContainerdImages {
  return new ContainerdImages(client, {
    snapshotter: config.containerd.snapshotter,
    registry: { hosts: config.registries },
  });
}

/** The runtime of an instance. */
export function runtimeOf(
  config: HostConfig,
  client: ContainerdClient,
  log: Logger,
  daemon?: ManagedContainerd,
): ContainerdRuntime {
  return new ContainerdRuntime({
    client,
    images: imagesOf(config, client),
    log: log.child({ room: "containerd" }),
    cgroupParent: config.instance,
    snapshotter: config.containerd.snapshotter,
    ...(config.containerd.runtimeBinary === "" ? {} : { runtimeBinary: config.containerd.runtimeBinary }),
    ...(daemon === undefined ? {} : { daemonPid: async () => await daemon.pid() }),
  });
}

/** Makes a host and has it listen. Parts that are down are waited for by `run`. */
export async function composeHost(config: HostConfig, log: Logger): Promise<Host> {
  await using stack = new AsyncDisposableStack();
  await mkdir(config.dataDir, { recursive: true, mode: 0o711 });
  await mkdir(config.runDir, { recursive: true, mode: 0o711 });

  const pki = stack.use(await Pki.open({ directory: join(config.dataDir, "pki"), log }));
  const daemon = config.containerd.socketPath === "" ? managedContainerd(config, log) : undefined;
  const client = stack.use(
    new ContainerdClient({ socket: containerdSocket(config), namespace: config.containerd.namespace }),
  );
  const runtime = runtimeOf(config, client, log, daemon);
  const network = networkOf(config, log);

  let opened: Store | undefined;
  const postgresLife = new AbortController();
  let postgresKept: Promise<void> | undefined;
  const store = (): Store => {
    if (opened === undefined) parts.require("database");
    if (opened === undefined) throw new Fault("unavailable", "The database was not opened yet");
    return opened;
  };
  stack.defer(async () => {
    await opened?.[Symbol.asyncDispose]();
    postgresLife.abort();
    await postgresKept;
  });

  const pool: Pool = stack.use(
    new Pool({
      log,
      endpoints: async (botId, wait) => {
        const address = await addresses.get(botId, wait);
        if (address === undefined) throw new Fault("failed_precondition", `Bot ${botId} does not run`);
        return {
          botId,
          bootId: address.bootId,
          target: `${address.ip}:${AGENT_PORT}`,
          tls: pki.clientTls(botId),
        };
      },
    }),
  );
  const addresses = new Addresses({
    onChange: (botId) => {
      pool.evict(botId);
    },
    load: async (botId, wait) => {
      const workspace = await store().workspaces.get(botId, wait);
      // Whoever answers there proves the boot id, so an address that is no longer right cannot mislead.
      if (workspace?.ip === undefined || workspace.bootId === undefined) return undefined;
      return { ip: workspace.ip, bootId: workspace.bootId };
    },
    save: async (botId, address, wait) => {
      await store().workspaces.observe(
        botId,
        address === undefined ? { bootId: null } : { ip: address.ip, bootId: address.bootId },
        wait,
      );
    },
  });

  let bundle: AgentBundle | undefined;
  const partList: Part[] = [
    {
      name: "database",
      deadlineMs: 120_000,
      everyMs: 5_000,
      ensure: async (signal) => {
        if (opened === undefined) {
          const database = await databaseOf(config, log, signal);
          postgresKept ??= database.postgres?.keepRunning(postgresLife.signal);
          opened = await openStore({
            database: database.target,
            namespace: config.containerd.namespace,
            migrate: config.database.migrate,
            log,
            signal,
          });
        }
        await opened.ping({ signal });
        return config.database.url === undefined ? "private Postgres" : "Postgres of database.url";
      },
    },
    {
      name: "containerd",
      after: "database",
      deadlineMs: 60_000,
      everyMs: 5_000,
      ensure: async (signal) => {
        await daemon?.ensure(signal);
        // A restarted daemon is found by the next attempt to connect, which this waits for.
        await client.ready(10_000, signal);
        const info = await runtime.info({ signal });
        const chosen = JSON.stringify({ uuid: info.uuid, namespace: config.containerd.namespace });
        const recorded = await store().settings.setOnce("containerd", chosen, { signal });
        if (recorded !== chosen) {
          throw new Fault(
            "failed_precondition",
            `Another containerd than before answers at ${containerdSocket(config)} (now ${chosen}, first ${recorded})`,
            { hint: "Point memoh at the containerd (and namespace) its bots were made in" },
          );
        }
        return `containerd ${info.version} at ${containerdSocket(config)}`;
      },
    },
    {
      name: "network",
      deadlineMs: 60_000,
      everyMs: 15_000,
      ensure: async (signal) => {
        const findings = await network.ensureHost({ signal });
        const open = findings.filter((finding) => !finding.repaired);
        if (open.length > 0) {
          throw new Fault("failed_precondition", open.map((finding) => finding.what).join("; "));
        }
        return `bridge ${config.network.bridge}, ${config.network.subnet}`;
      },
    },
    {
      name: "agent_bundle",
      deadlineMs: 60_000,
      everyMs: 60_000,
      ensure: async () => {
        bundle = await ensureAgentBundle(config.dataDir, log);
        return bundle.dir;
      },
    },
    {
      name: "disk",
      deadlineMs: 5_000,
      everyMs: 10_000,
      ensure: async () => {
        await requireDiskSpace(config.dataDir, config.limits.diskReserve);
        return config.dataDir;
      },
    },
  ];
  const parts = new Parts(partList, log);

  const lifecycle = new Lifecycle({
    runtime,
    network,
    store,
    addresses,
    provider: pool,
    files: new BotFiles(config.runDir),
    mintIdentity: (botId, bootId) => pki.mintAgentIdentity(botId, bootId),
    agent: async () => {
      bundle ??= await ensureAgentBundle(config.dataDir, log);
      return { source: bundle.mount.source, target: bundle.mount.target, args: bundle.args };
    },
    resolvConf: async () => {
      const resolvers = await readResolvConf({
        configured: config.network.nameservers,
        deny: [...config.network.deny, config.network.subnet],
      });
      if (resolvers.source === "none") {
        log.warn({ dropped: resolvers.dropped }, "names will not resolve in bots; set network.nameservers");
      }
      return resolvers.text;
    },
    extraCa: config.agent.extraCa === "" ? undefined : config.agent.extraCa,
    timezoneFile: await timezoneFile(config),
    log,
  });
  const reconciler = new Reconciler({ lifecycle, runtime, network, store, log });
  const tending = new Tending({ lifecycle, runtime, store, log });
  const control = new HostControlPlane({
    config,
    parts,
    store,
    runtime,
    reconciler,
    tending,
    tokens: new Tokens(store, config.auth.jwtSecret),
    pool,
    doctor: () => machineChecks(config),
  });
  const http = await serve({
    control,
    log: log.child({ room: "http" }),
    limits: { maxBody: config.http.maxBody, maxUpload: config.http.maxUpload },
    version: buildInfo.version,
    socketPath: config.socketPath,
    addr: config.http.addr,
    allowedHosts: config.http.allowedHosts,
  });
  stack.use(http);
  const owned = stack.move();
  return {
    http,
    run: async (signal) => {
      const reconciling = parts
        .allReadyOnce()
        .then(() => Promise.all([reconciler.run(signal), tending.run(signal)]));
      reconciling.catch((error: unknown) => {
        log.error({ err: error }, "the reconciler ended");
      });
      await parts.run(signal);
      await reconciler.drain();
    },
    [Symbol.asyncDispose]: async () => {
      await owned.disposeAsync();
    },
  };
}

/** What `memoh host --stop` finds on this machine. */
export interface StopView {
  readonly bots: number;
  readonly containerd: boolean;
  readonly postgres: boolean;
  /** Stops bots, then containerd, then Postgres; what is desired stays. @returns what could not be stopped */
  stopAll(say: (line: string) => void): Promise<string[]>;
}

/** Looks at what memoh runs on this machine without starting anything. */
export async function composeStop(config: HostConfig, log: Logger): Promise<StopView> {
  const daemon = config.containerd.socketPath === "" ? managedContainerd(config, log) : undefined;
  const ours = daemon !== undefined && (await daemon.pid()) !== undefined;
  const postgres =
    config.database.url === undefined ? await findPrivatePostgres({ dataDir: config.dataDir }) : undefined;
  const running = ours || daemon === undefined ? await runningBots(config, log) : [];
  return {
    bots: running.length,
    containerd: ours,
    postgres: postgres !== undefined,
    stopAll: async (say) => {
      const failures: string[] = [];
      const attempt = async (what: string, work: () => Promise<void>) => {
        try {
          await work();
          say(`Stopped ${what}`);
        } catch (error) {
          failures.push(`${what}: ${Fault.from(error).message}`);
        }
      };
      if (running.length > 0) {
        await attempt(`${running.length} bots`, async () => {
          await stopBots(config, log, running);
        });
      }
      // Containers must never run on without the daemon that knows them.
      if (failures.length === 0 && ours) await attempt("containerd", async () => await daemon.stop());
      if (postgres !== undefined) await attempt("Postgres", async () => await postgres.stop());
      return failures;
    },
  };
}

async function runningBots(config: HostConfig, log: Logger): Promise<string[]> {
  await using client = new ContainerdClient({
    socket: containerdSocket(config),
    namespace: config.containerd.namespace,
    timeoutMs: 10_000,
  });
  try {
    const containers = await runtimeOf(config, client, log).list();
    return containers.filter((container) => container.task !== "none").map((container) => container.id);
  } catch (error) {
    if (Fault.is(error, "unavailable")) return [];
    throw error;
  }
}

async function stopBots(config: HostConfig, log: Logger, ids: readonly string[]): Promise<void> {
  await using client = new ContainerdClient({
    socket: containerdSocket(config),
    namespace: config.containerd.namespace,
  });
  const runtime = runtimeOf(config, client, log);
  await Promise.all(ids.map((id) => runtime.stopTask(id, { graceMs: 5_000 })));
}

/** The migrations of the instance's database, for `memoh migrate`. */
export async function migrationsOf(config: HostConfig, log: Logger, signal: AbortSignal) {
  const { target } = await databaseOf(config, log, signal);
  const options = { signal, log };
  return {
    up: async (to: number | undefined) => await migrateUp(target, { ...options, to }),
    down: async (to: number | undefined) => await migrateDown(target, { ...options, to }),
    state: async () => await migrationState(target, options),
    force: async (version: number) => await forceVersion(target, version, options),
  };
}

/** The configured database, or the private one, started if it does not run. */
async function databaseOf(
  config: HostConfig,
  log: Logger,
  signal: AbortSignal,
): Promise<{ readonly target: DatabaseTarget; readonly postgres?: PrivatePostgres }> {
  const url = config.database.url?.reveal();
  if (url !== undefined) return { target: parseDatabaseUrl(url) };
  const postgres = await openPrivatePostgres({ dataDir: config.dataDir, log, signal });
  return { target: postgres.target, postgres };
}

/** The zone file of the configuration, else the host's own when it has one. */
async function timezoneFile(config: HostConfig): Promise<string | undefined> {
  const { timezone } = config.agent;
  const path = timezone === "" ? "/etc/localtime" : join("/usr/share/zoneinfo", timezone);
  const found = await access(path).then(
    () => true,
    () => false,
  );
  if (found) return path;
  if (timezone === "") return undefined;
  throw new Fault("invalid_argument", `Cannot use the time zone ${timezone}: there is no ${path}`, {
    hint: "Install tzdata, or correct agent.timezone",
  });
}
