// What a process in a bot's container is, may do and may use, seen from inside.
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startWorld, type World } from "./world.ts";

describe("isolation", () => {
  let world: World;
  let id: string;
  before(async () => {
    world = await startWorld();
    const source = join(world.daemon.dir, "shown");
    await mkdir(source);
    await writeFile(join(source, "file"), "from the host\n");
    const single = join(world.daemon.dir, "resolv");
    await writeFile(single, "nameserver 192.0.2.1\n");
    const description = world.describe({
      mounts: [
        { source, target: "/run/memoh/id" },
        { source: single, target: "/etc/resolv.conf" },
      ],
      env: { PATH: "/bin", GREETING: "two words" },
    });
    id = description.id;
    await world.runtime.ensureContainer(description, { fresh: true });
    await world.runtime.createTask(id);
    await world.runtime.startTask(id);
  });
  after(async () => {
    await world[Symbol.asyncDispose]();
  });

  const inside = async (line: string) => await world.inside(id, line);
  const status = async (field: string) =>
    new RegExp(`^${field}:\\s*(.*)$`, "m").exec(await inside("cat /proc/1/status"))?.[1];

  test("root keeps eleven capabilities, none inheritable or ambient, and gains no new ones", async () => {
    // AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETGID SETPCAP SETUID SYS_CHROOT
    const bits = [29, 0, 1, 3, 4, 5, 10, 6, 8, 7, 18].reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
    const wanted = bits.toString(16).padStart(16, "0");
    assert.equal(await status("CapEff"), wanted);
    assert.equal(await status("CapBnd"), wanted);
    assert.equal(await status("CapInh"), "0".repeat(16));
    assert.equal(await status("CapAmb"), "0".repeat(16));
    assert.equal(await status("NoNewPrivs"), "1");
    assert.equal(await status("Seccomp"), "2");
  });

  test("administrative calls are refused, ordinary ones are not", async () => {
    assert.match(await inside("mount -t tmpfs none /mnt"), /Operation not permitted|permission denied/);
    assert.match(await inside("umount -l /run; grep -c ' /run ' /proc/mounts"), /^1$/m);
    for (const flag of ["-n", "-m", "-r"]) {
      assert.match(await inside(`unshare ${flag} true`), /Operation not permitted/);
    }
    assert.match(await inside("hostname other"), /Operation not permitted/);
    assert.match(await inside("mknod /tmp/sda b 8 0"), /Operation not permitted/);
    assert.match(await inside("dmesg"), /Operation not permitted/);
    assert.match(await inside("ip link add dummy0 type dummy"), /Operation not permitted/);
    assert.equal(await inside("mkfifo /tmp/fifo && chown 1000 /tmp/fifo && chroot / echo ok"), "ok\n");
  });

  test("the kernel's secrets are masked and its settings read-only", async () => {
    assert.equal(await inside("cat /proc/interrupts /proc/keys /proc/timer_list; ls /sys/firmware"), "");
    assert.match(await inside("echo 1 > /proc/sys/kernel/panic"), /Read-only file system/);
    assert.match(await inside("echo h > /proc/sysrq-trigger"), /Read-only file system|nonexistent/);
    assert.match(
      await inside("cd /sys/fs/cgroup; [ -d memory ] && cd memory; mkdir x"),
      /Read-only file system/,
    );
  });

  test("it has its own processes, name, devices and environment, and no terminal", async () => {
    assert.match(await inside("cat /proc/1/cmdline"), /^\/bin\/sh/);
    assert.equal(await inside("hostname"), "bot\n");
    assert.equal(
      await inside("ls /dev | sort | tr '\\n' ' '"),
      "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
    );
    assert.equal(
      await inside("tr '\\0' '\\n' < /proc/1/environ | sort"),
      "GREETING=two words\nHOME=/root\nPATH=/bin\n",
    );
    assert.match(
      await inside("head -c 5 /dev/urandom | wc -c; echo x > /dev/null; echo done"),
      /^5\ndone\n$/,
    );
    assert.equal(await inside("for n in 0 1 2; do readlink /proc/1/fd/$n; done"), "/dev/null\n".repeat(3));
    assert.equal(await inside("cat /proc/1/oom_score_adj"), "100\n");
  });

  test("files of the host are there, and only to read", async () => {
    assert.equal(
      await inside("cat /run/memoh/id/file /etc/resolv.conf"),
      "from the host\nnameserver 192.0.2.1\n",
    );
    for (const path of ["/run/memoh/id/file", "/run/memoh/id/new", "/etc/resolv.conf"]) {
      assert.match(await inside(`echo x > ${path}`), /Read-only file system/);
    }
    assert.match(await inside("rm /etc/resolv.conf"), /Resource busy|Device or resource busy|Read-only/);
  });

  test("open files are limited to what the daemon may give", async () => {
    const limit = Number(await inside("ulimit -Hn"));
    assert.ok(limit >= 1024 && limit <= 65_536, String(limit));
    assert.match(await inside(`ulimit -n ${limit + 1} 2>&1 || echo refused`), /refused|error/);
  });

  test("limits are in force, seen from inside, and changed while it runs", async () => {
    const memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
    assert.equal(await inside(memory), `${64 << 20}\n`);
    assert.match(await inside("tail /dev/zero; echo $?"), /137/);
    assert.match(await inside("for i in $(seq 100); do sleep 0.5 & done; wait"), /can't fork/);
    assert.equal((await world.runtime.inspect(id))?.task, "running");

    await world.runtime.updateLimits(id, { memory: 128 << 20, pids: 200 });
    assert.equal(await inside(memory), `${128 << 20}\n`);
    assert.doesNotMatch(await inside("for i in $(seq 100); do sleep 0.1 & done; wait"), /can't fork/);
    await world.runtime.updateLimits(id, { memory: 32 << 20, cpus: 0.5 });
    assert.equal(await inside(memory), `${32 << 20}\n`);
    assert.match(
      await inside("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null"),
      /^50000/,
    );
  });
});
